import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from icl.errors import InputError
from icl.parallel.chips import CHIPS, find_chip
from icl.planner.topology import devices_of, parse_topology, prepare_environment

SIDES = st.integers(1, 16)


@given(st.sampled_from(["v4", "v5p"]), SIDES, SIDES, SIDES, st.integers(1, 8))
def test_a_tpu_slice_has_the_product_of_its_sides_times_the_slices(
    chip: str, a: int, b: int, c: int, slices: int
) -> None:
    topology = parse_topology(f"{chip}:{a}x{b}x{c}@{slices}")
    assert (topology.num_chips, topology.slices) == (a * b * c * slices, slices)
    assert topology.chip is CHIPS[chip] and topology.is_compiled


@given(st.sampled_from(["v5e", "v6e"]), SIDES, SIDES)
def test_flat_slices_have_two_sides(chip: str, a: int, b: int) -> None:
    topology = parse_topology(f"{chip}:{a}x{b}")
    assert (topology.num_chips, topology.slices) == (a * b, 1)
    with pytest.raises(InputError, match="two sides"):
        parse_topology(f"{chip}:{a}x{b}x1")


@given(st.sampled_from([chip.name for chip in CHIPS.values() if chip.platform == "gpu"]), st.integers(1, 512))
def test_gpus_are_counted_and_not_compiled_for(chip: str, number: int) -> None:
    topology = parse_topology(f"gpu:{chip}x{number}")
    assert topology.chip is CHIPS[chip]
    assert (topology.num_chips, topology.is_compiled) == (number, False)


@given(st.integers(1, 512))
def test_cpus_share_the_memory_of_this_machine(number: int) -> None:
    topology = parse_topology(f"cpu:{number}")
    assert topology.num_chips == number
    assert topology.chip.memory * number == pytest.approx(parse_topology("cpu:1").chip.memory)


@given(st.text("v45ep:gux@0123h. ", max_size=14))
def test_any_other_text_is_refused_with_the_flag_and_the_text(text: str) -> None:
    try:
        topology = parse_topology(text)
    except InputError as error:
        assert str(error).startswith(f"--topology {text!r}: ")
        assert "\n" not in str(error)
    else:
        assert topology.name == text and topology.num_chips >= 1


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("v5p", "expected TPU:SIDES"),
        ("v5p:8x8x8@", "expected TPU:SIDES"),
        ("v5p:8x8", "three sides"),
        ("v5p:64", "three sides"),
        ("v7:2x2", "unknown chip 'v7', expected one of v4, v5e, v5p, v6e"),
        ("h100:8x8x8", "unknown chip 'h100'"),
        ("gpu:v5px8", "unknown chip 'v5p'"),
        ("gpu:h100", "expected TPU:SIDES"),
        ("cpu:0", "expected 1 to 100,000 devices, not 0"),
        ("v4:0x2x2", "expected 1 to 100,000 devices, not 0"),
        ("v4:99x99x99", "expected 1 to 100,000 devices, not 970,299"),
        ("v5p:2x2x1@0", "expected 1 to 100,000 devices, not 0"),
    ],
)
def test_a_bad_topology_is_told_what_was_expected(text: str, says: str) -> None:
    with pytest.raises(InputError) as error:
        parse_topology(text)
    assert says in str(error.value)


def test_a_missing_compiler_names_the_extra_that_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setenv("TPU_LIBRARY_PATH", "/nowhere/libtpu.so")
    with pytest.raises(InputError, match=r"pip install 'icl\[plan\]'"):
        prepare_environment(parse_topology("v5e:2x2"))
    prepare_environment(parse_topology("gpu:h100x8"))
    assert os.environ["JAX_PLATFORMS"] == "cpu"


def test_simulated_devices_stand_for_gpus_as_far_as_there_are() -> None:
    assert len(devices_of(parse_topology("gpu:h100x4"))) == 4
    with pytest.raises(InputError, match="simulates 8 devices, expected at least 9"):
        devices_of(parse_topology("cpu:9"))


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("TPU v4", "v4"),
        ("TPU v5 lite", "v5e"),
        ("TPU v5", "v5p"),
        ("TPU v5p", "v5p"),
        ("TPU v6 lite", "v6e"),
        ("NVIDIA A100-SXM4-80GB", "a100"),
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA L4", "l4"),
        ("NVIDIA L40S", "l40s"),
        ("Tesla T4", "t4"),
    ],
)
def test_a_chip_is_known_by_what_jax_calls_it(kind: str, name: str) -> None:
    found = find_chip(kind)
    assert found is not None and found.name == name


def test_every_chip_names_the_page_of_its_vendor() -> None:
    vendors = {
        "tpu": "https://docs.cloud.google.com/tpu/docs/",
        "gpu": "https://www.nvidia.com/en-us/data-center/",
    }
    for chip in CHIPS.values():
        assert chip.source.startswith(vendors[chip.platform]) and chip.source != vendors[chip.platform]


@pytest.mark.parametrize(
    ("name", "gib", "teraflops", "bandwidth", "one_way", "network_gbit"),
    [
        ("v4", 32, 275, 1200, 300, None),
        ("v5e", 16, 197, 819, 200, 25),
        ("v5p", 95, 459, 2765, 600, 50),
        ("v6e", 32, 918, 1638, 400, 100),
    ],
)
def test_figures_of_tpus_are_those_of_their_pages(
    name: str, gib: int, teraflops: int, bandwidth: int, one_way: int, network_gbit: int | None
) -> None:
    chip = CHIPS[name]
    assert chip.memory == gib * 2**30 and chip.flops == teraflops * 1e12
    assert (chip.bandwidth, chip.link) == (bandwidth * 1e9, one_way * 1e9)
    assert chip.network == (network_gbit and network_gbit * 1e9 / 8)

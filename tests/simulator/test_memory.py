import msgspec
import pytest
from simattn.facts import UserError
from simattn.hwspecs import gpus
from simattn.simulator import memory
from simattn.simulator.memory import dram_seconds, l2_seconds, memory_op_seconds, missing_share
from simattn.workloads import AttentionProblem, Kind, Memory, from_bsr, kv_cache_write, schedule

H100 = gpus.load("h100")


def traffic(made, problem, *, hw=H100, resident=132, **options):
    k, v = (d * problem.element_bytes for d in (problem.head_dim, problem.head_dim_v))
    visit = [made.kv_tile * (k + v), made.kv_tile * k]
    row = (k + v) / 2
    return memory.traffic(hw, made, row_bytes=row, token_bytes=k + v, visit_bytes=visit, resident=resident, **options)


def with_l2(mib):
    return msgspec.structs.replace(H100, mem=msgspec.structs.replace(H100.mem, l2=msgspec.structs.replace(H100.mem.l2, mib=mib)))


def test_compulsory_and_l2_traffic_of_a_dense_call():
    problem = AttentionProblem(batch=2, q_heads=8, kv_heads=2, seq_q=1024, head_dim=128)
    moved = traffic(schedule("dense", seq_q=1024).with_copies(16), problem, heads_share=4)
    q_and_o = 2 * 8 * 1024 * 256 * 2
    keys = 2 * 2 * 1024 * 256 * 2
    assert moved.dram == q_and_o + keys
    assert moved.l2 == q_and_o + 16 * 64 * 128 * 256 * 2


def test_packed_heads_read_keys_once():
    problem = AttentionProblem(q_heads=8, kv_heads=2, seq_q=1024, head_dim=128)
    packed = traffic(schedule("dense", seq_q=1024, pack=4).with_copies(2), problem)
    plain = traffic(schedule("dense", seq_q=1024).with_copies(8), problem, heads_share=4)
    assert packed == plain  # as many tiles of rows, of fewer positions each


def test_achieved_rates_not_peaks():
    h200 = gpus.load("h200")
    assert dram_seconds(h200, 4800e9) == pytest.approx(1 / h200.eff.dram_read)


def test_permutation_is_held_to_its_own_rate():
    h100 = gpus.load("h100")
    streamed = memory_op_seconds(h100, Memory("copy", 10**9, 1), 1000)
    permuted = memory_op_seconds(h100, Memory("permute", 10**9, 1, access="permute"), 1000)
    assert permuted == pytest.approx(1e-3 + h100.launch.kernel_us * 1e-6)
    assert streamed < permuted


def test_keys_of_every_sequence_of_a_ragged_batch_are_read():
    problem = AttentionProblem(q_heads=4, seq_q=1024, head_dim=128)
    ragged = traffic(schedule("ragged", seq_q=1024, lengths=(512, 256, 256)).with_copies(4), problem)
    assert ragged.dram == 2 * 4 * 1024 * 256 * 2


def test_l2_follows_the_clock():
    h100 = gpus.load("h100")
    assert l2_seconds(h100, 1e9, 1e9) == pytest.approx(1e9 / (3942 * 1e9))
    assert l2_seconds(h100, 1e9, 2e9) == l2_seconds(h100, 1e9, 1e9) / 2


def test_a_cluster_reads_its_tiles_once():
    problem = AttentionProblem(q_heads=1, seq_q=4096, head_dim=128)
    alone, pair = (traffic(schedule("dense", seq_q=4096), problem, multicast=multicast) for multicast in (1, 2))
    assert alone.dram == pair.dram
    assert alone.l2 - pair.l2 == 32 * 32 * 128 * 256 * 2 / 2


def test_keys_whose_values_are_never_read():
    both = from_bsr([0, 2], [0, 1], q_tile=128, kv_tile=128, seq_q=128, seq_kv=256)
    first = from_bsr([0, 2], [0, 1], q_tile=128, kv_tile=128, seq_q=128, seq_kv=256, kinds=[Kind.FULL, Kind.QK_ONLY])
    problem = AttentionProblem(q_heads=1, seq_q=128, seq_kv=256, head_dim=128)
    assert traffic(both, problem).l2 - traffic(first, problem).l2 == 128 * 128 * 2


def test_keys_that_overflow_l2_come_again_for_every_wave():
    problem = AttentionProblem(q_heads=1, seq_q=65536, head_dim=128)
    made = schedule("dense", seq_q=65536)
    keys = 65536 * 256 * 2
    fits, spills = (traffic(made, problem, hw=with_l2(mib), resident=128).dram for mib in (33, 31))
    assert fits == 2 * keys
    assert spills == keys + 512 / 128 * keys
    # A window is short: what one wave reads is small, whatever the sequence takes.
    window = schedule("sliding_window", seq_q=65536, window=1024)
    assert traffic(window, problem, hw=with_l2(31), resident=128).dram == 2 * keys


def test_a_second_run_finds_in_l2_what_fits():
    problem = AttentionProblem(q_heads=1, seq_q=4096, head_dim=128)
    made = schedule("dense", seq_q=4096)
    bytes_ = traffic(made, problem).dram
    warm = [traffic(made, problem, hw=with_l2(bytes_ / 2**20 * f), warm=0.0).dram for f in (2, 4 / 3, 1, 0.5)]
    assert warm == pytest.approx([0, bytes_ / 2, bytes_, bytes_], abs=1)


def test_the_cache_write_is_a_staircase_of_ctas_on_an_sm():
    # vLLM copies each token with min(kv_heads * head_dim, 512) threads: 4 CTAs of 512 threads fit on an SM, so one of 512 costs
    # as much at 8 K/V heads as at 4, but for the bytes.
    def microseconds(kv_heads):
        problem = AttentionProblem(q_heads=64, kv_heads=kv_heads, seq_q=16384, head_dim=128)
        return memory_op_seconds(H100, kv_cache_write(problem), None, missing=0.0) * 1e6

    one, two, four, eight = (microseconds(n) for n in (1, 2, 4, 8))
    assert one < two < four < eight
    assert eight / four < 1.5 < four / one
    assert four == pytest.approx(16384 * H100.launch.token_cta_us / (132 * 4), rel=0.1)


def test_ctas_are_launched_one_a_clock():
    """A CTA of one warp or of two leaves room for as many as an SM takes; then the launch of them is what takes time."""

    def nanoseconds(head_dim: int) -> float:
        problem = AttentionProblem(q_heads=8, kv_heads=1, seq_q=2**17, head_dim=head_dim)
        return memory_op_seconds(H100, kv_cache_write(problem), None, missing=0.0) / 2**17 * 1e9

    clock = 1e9 / H100.clock_hz("burst")
    assert clock < nanoseconds(32) < nanoseconds(64) < 1.2 * clock
    assert nanoseconds(128) > nanoseconds(64)


def test_ctas_that_wait_for_dram_wait_longer_than_those_that_wait_for_l2():
    # Half of a CTA of 512 threads is a chain of accesses: 374 ns each from DRAM, 336 cycles at 1,980 MHz from L2.
    write = kv_cache_write(AttentionProblem(q_heads=64, kv_heads=1, seq_q=16384, head_dim=512))
    cold, held = (memory_op_seconds(H100, write, None, missing=share) for share in (1.0, 0.0))
    assert cold / held == pytest.approx(0.5 * (374e-9 * 1980e6 / 336) + 0.5, rel=0.02)


def test_l2_of_one_partition_keeps_what_is_as_large_as_itself():
    halves = with_l2(40)
    whole = msgspec.structs.replace(
        halves, mem=msgspec.structs.replace(halves.mem, l2=msgspec.structs.replace(halves.mem.l2, partitions=1))
    )
    sizes = [mib * 2**20 for mib in (20, 30, 40, 60, 80)]
    assert [missing_share(halves, size) for size in sizes] == [0, 0.5, 1, 1, 1]
    assert [missing_share(whole, size) for size in sizes] == [0, 0, 0, 0.5, 1]


@pytest.mark.parametrize(
    ("gpu", "form", "divisions", "bytes_", "values", "published_ms", "within"),
    [
        # Rotary embedding of 8,192 tokens, 32 query and 8 K/V heads of 256 in fp32 (pytorch issue 141265): two products, a sum, a
        # concatenation of the last of four dimensions, and half of the values negated.
        ("h100", "broadcast", 3, 8, 2 * 8192 * 10240, 0.768539, 0.05),
        ("h100", "broadcast", 3, 12, 8192 * 10240, 0.498943, 0.05),
        ("h100", "gathered", 0, 8, 8192 * 10240, 0.489377, 0.15),
        ("h100", "copy", 2, 8, 8192 * 5120, 0.181535, 0.10),
        # Four copies of NATTEN's permutation of FLUX: 256 x 256 tokens in tiles of 16 x 16, 24 heads of 128, 16 bits.
        ("h100", "copy", 4, 4, 4 * 65536 * 3072, 2.402, 0.20),
        ("b200", "copy", 4, 4, 4 * 65536 * 3072, 2.239, 0.15),
    ],
)
def test_published_kernels_that_find_every_value(gpu, form, divisions, bytes_, values, published_ms, within):
    op = Memory(form, bytes_ * values, 0, values=values, form=form, divisions=divisions)
    assert memory_op_seconds(gpus.load(gpu), op, None) * 1e3 == pytest.approx(published_ms, rel=within)


def test_kernels_that_find_every_value_are_counted_by_architecture():
    op = Memory("mul", 8 * 2**20, 0, values=2**20, form="broadcast", divisions=2)
    plain = Memory("mul", 8 * 2**20, 0)
    for gpu, instructions in (("a100", 45), ("h100", 56), ("b200", 54), ("b300", 54), ("rtx_5090", 56)):
        spec = gpus.load(gpu)
        more = memory_op_seconds(spec, op, None) - memory_op_seconds(spec, plain, None)
        issue = spec.chip.sm_count * spec.sm.schedulers * 32 * spec.clock_hz("burst")
        assert more == pytest.approx(instructions * 2**20 / issue)
    with pytest.raises(UserError, match=r"were not counted on gfx942, only on sm80, .*"):
        memory_op_seconds(gpus.load("mi300x"), op, None)


@pytest.mark.parametrize("resident", [1, 3, 8])
@pytest.mark.parametrize("pattern", ["causal", "streaming_llm", "bigbird", "longformer"])
def test_tiles_of_rows_in_step_are_counted_once(pattern, resident):
    found = schedule(pattern, seq_q=2048, q_tile=128, kv_tile=64, **PARAMS.get(pattern, {}))
    (mask,) = found.to_mask()
    sets = [mask[i : i + resident].any(0).sum() for i in range(0, len(mask), resident)]
    assert memory._tiles_in_step(found, found.groups[0], resident).tolist() == sets


PARAMS = {"streaming_llm": {"window": 300, "sinks": 70}, "longformer": {"window": (90, 90)}}

import pytest

from kf_core.metrics.profile import REST, WAITING, Kernel, Profile, profiled

from .test_parity import stream


@pytest.mark.parametrize(
    "name, kind",
    [
        ("void pytorch_flash::flash_fwd_kernel<pytorch_flash::Flash_fwd_kernel_traits<128, 64, 64>>", "attention"),
        ("cudnn_generated_fort_native_sdpa_sm90_flash_fprop_wgmma_f16_knob_32_64x192x128", "attention"),
        ("fmha_cutlassF_bf16_aligned_64x128_rf_sm80(PyTorchMemEffAttention)", "attention"),
        ("nvjet_hsh_256x128_64x4_2x1_v_bz_coopA_bias_TNT", "products of matrices"),
        ("sm90_xmma_gemm_bf16bf16_bf16f32_f32_tn_n_tilesize128x128x64_cublas", "products of matrices"),
        ("void cutlass::device_kernel<at::cuda::detail::enable_3x_kernel_for_sm9x<...scaled_mm", "products of matrices"),
        ("sm90_xmma_fprop_implicit_gemm_bf16bf16_bf16f32_f32_nhwckrsc_nhwc_tilesize64x64x64", "convolutions"),
        ("void at::native::unrolled_elementwise_kernel<at::native::direct_copy_kernel_cuda(...)", "copies"),
        ("Memcpy DtoH (Device -> Pinned)", "copies"),
        ("void at::native::(anonymous namespace)::CatArrayBatchedCopy<...>", "copies"),
        ("triton_poi_fused_add_mul_3", REST),
        ("void at::native::vectorized_elementwise_kernel<4, at::native::CUDAFunctor_add<float>>", REST),
        ("aten::native_layer_norm", REST),
        ("mkldnn::_linear_pointwise", "products of matrices"),
        ("aten::mkldnn_convolution", "convolutions"),
    ],
)
def test_a_kernels_kind_is_told_by_its_name(name, kind):
    assert Kernel(name, 1, 1.0).kind == kind


def test_what_the_device_did_not_run_it_waited():
    seen = Profile(2, 10.0, (Kernel("nvjet", 4, 6.0), Kernel("flash_fwd", 2, 1.0), Kernel("Memcpy", 2, 1.0)))
    kinds = seen.kinds()
    assert kinds["products of matrices"] == pytest.approx(0.6) and kinds[WAITING] == pytest.approx(0.2)
    assert list(kinds)[0] == "products of matrices" and sum(kinds.values()) == pytest.approx(1)
    table = "\n".join(seen.table(most=1))
    assert "| products of matrices | 3000.0 | 60% |" in table and "| `nvjet` | products of matrices | 2 | 3000.00 |" in table
    assert "`Memcpy`" not in table


def test_a_real_stream_is_profiled():
    """On the CPU: each kind of work that a stream does is seen."""
    seen = profiled(stream(), 2)
    kinds = seen.kinds()
    assert kinds["products of matrices"] > 0 and kinds["convolutions"] > 0 and kinds["attention"] > 0 and 0 <= kinds[WAITING] < 1
    assert seen.kernels[0].seconds >= seen.kernels[-1].seconds > 0 and sum(kinds.values()) <= 1.01

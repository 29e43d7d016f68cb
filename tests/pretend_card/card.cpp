// A device of PyTorch's own making, "pretend": the processor in disguise. What a graphics card would refuse, it refuses: a tensor that
// lies elsewhere, an input of another precision than the weights of a convolution. It computes by handing the operation to the processor.
//
// Built against the PyTorch that runs (see __init__.py). Source of the hooks: PyTorch, "Accelerator Integration" (PrivateUse1).

#include <algorithm>
#include <cstring>
#include <map>
#include <mutex>
#include <string>

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/EmptyTensor.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <ATen/native/CPUFallback.h>
#include <ATen/native/Resize.h>
#include <ATen/native/transformers/attention.h>
#include <ATen/native/transformers/sdp_utils_cpp.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/alias_native.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/resize_native.h>
#include <ATen/ops/unfold_native.h>
#include <ATen/ops/view_as_complex_native.h>
#include <ATen/ops/view_as_real_native.h>
#include <ATen/ops/view_native.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <c10/core/impl/alloc_cpu.h>
#include <torch/extension.h>

namespace {

constexpr auto TYPE = c10::DeviceType::PrivateUse1;
const c10::Device CARD(TYPE, 0);

// ---- memory

std::mutex guarded;
std::map<void*, size_t> sizes;
size_t held = 0, operations = 0;

void give_back(void* memory) {
  std::lock_guard<std::mutex> guard(guarded);
  held -= sizes[memory];
  sizes.erase(memory);
  c10::free_cpu(memory);
}

struct Memory final : c10::Allocator {
  c10::DataPtr allocate(size_t bytes) override {
    void* memory = c10::alloc_cpu(std::max<size_t>(bytes, 1));
    std::lock_guard<std::mutex> guard(guarded);
    sizes[memory] = bytes;
    held += bytes;
    return {memory, memory, &give_back, CARD};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &give_back; }
  void copy_data(void* target, const void* source, std::size_t bytes) const override { std::memcpy(target, source, bytes); }
};

Memory memory;
REGISTER_ALLOCATOR(TYPE, &memory);

// ---- one device with one stream that is never behind

struct Guard final : c10::impl::DeviceGuardImplInterface {
  c10::DeviceType type() const override { return TYPE; }
  c10::Device exchangeDevice(c10::Device) const override { return CARD; }
  c10::Device getDevice() const override { return CARD; }
  void setDevice(c10::Device) const override {}
  void uncheckedSetDevice(c10::Device) const noexcept override {}
  c10::Stream getStream(c10::Device device) const override { return c10::Stream(c10::Stream::DEFAULT, device); }
  c10::Stream exchangeStream(c10::Stream stream) const override { return getStream(stream.device()); }
  c10::DeviceIndex deviceCount() const noexcept override { return 1; }
};
C10_REGISTER_GUARD_IMPL(PrivateUse1, Guard);

struct Hooks final : at::PrivateUse1HooksInterface {
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
  bool isAvailable() const override { return true; }
  bool isBuilt() const override { return true; }
  bool isPinnedPtr(const void*) const override { return false; }
  c10::DeviceIndex deviceCount() const override { return 1; }
  c10::DeviceIndex getCurrentDevice() const override { return 0; }
  c10::Allocator* getPinnedMemoryAllocator() const override { return at::getCPUAllocator(); }
  at::Generator getNewGenerator(c10::DeviceIndex) const override { return at::make_generator<at::CPUGeneratorImpl>(); }
  void resizePrivateUse1Bytes(const c10::Storage& storage, size_t bytes) const override {
    auto larger = memory.allocate(bytes);
    std::memcpy(larger.get(), storage.data(), std::min(bytes, storage.nbytes()));
    storage.set_data_ptr_noswap(std::move(larger));
    storage.set_nbytes(bytes);
  }
};
Hooks hooks;

// ---- tensors: made, looked at, copied

at::Tensor as_processor_sees_it(const at::Tensor& tensor) {
  if (tensor.device().is_cpu()) return tensor;
  auto* data = const_cast<void*>(tensor.storage().data());
  return at::from_blob(data, tensor.sizes(), tensor.strides(), tensor.storage_offset(), [](void*) {}, tensor.options().device(at::kCPU));
}

at::Tensor on_card(const at::Tensor& tensor) { return tensor.defined() ? tensor.to(CARD) : tensor; }

at::Tensor empty(c10::IntArrayRef size, std::optional<at::ScalarType> dtype, std::optional<at::Layout>, std::optional<at::Device>,
                 std::optional<bool>, std::optional<at::MemoryFormat> format) {
  return at::detail::empty_generic(size, &memory, c10::DispatchKeySet(c10::DispatchKey::PrivateUse1), c10::dtype_or_default(dtype), format);
}

at::Tensor empty_strided(c10::IntArrayRef size, c10::IntArrayRef stride, std::optional<at::ScalarType> dtype, std::optional<at::Layout>,
                         std::optional<at::Device>, std::optional<bool>) {
  const c10::DispatchKeySet key(c10::DispatchKey::PrivateUse1);
  return at::detail::empty_strided_generic(size, stride, &memory, key, c10::dtype_or_default(dtype));
}

at::Tensor copy_from(const at::Tensor& source, const at::Tensor& target, bool) {
  as_processor_sees_it(target).copy_(as_processor_sees_it(source));
  return target;
}

at::Tensor copy_from_and_resize(const at::Tensor& source, const at::Tensor& target) {
  if (target.sizes() != source.sizes()) at::native::resize_(target, source.sizes(), std::nullopt);
  return copy_from(source, target, false);
}

at::Tensor& set_storage(at::Tensor& tensor, at::Storage storage, c10::SymInt offset, c10::SymIntArrayRef size, c10::SymIntArrayRef stride) {
  auto* impl = tensor.unsafeGetTensorImpl();
  impl->set_storage_keep_dtype(std::move(storage));
  impl->set_sizes_and_strides(C10_AS_INTARRAYREF_SLOW(size), C10_AS_INTARRAYREF_SLOW(stride), offset.expect_int());
  return tensor;
}

at::Scalar number(const at::Tensor& tensor) { return at::_local_scalar_dense(as_processor_sees_it(tensor)); }

// ---- operations

void refuse_elsewhere(const at::Tensor& tensor, const std::string& operation, const std::string& argument) {
  TORCH_CHECK(!tensor.defined() || !tensor.device().is_cpu(), "Expected all tensors to be on the same device: ", operation,
              " got a tensor ", tensor.sizes(), " on the processor as ", argument);
}

// Everything that is not named below. A number may lie on the processor, and so may the places of an index, as with real cards.
void compute(const c10::OperatorHandle& handle, torch::jit::Stack* stack) {
  const auto& schema = handle.schema();
  const auto& arguments = schema.arguments();
  const std::string& name = schema.name();
  const bool is_index = name.rfind("aten::index", 0) == 0 || name == "aten::_index_put_impl_";
  const auto given = torch::jit::last(*stack, arguments.size());
  for (size_t i = 0; i < arguments.size(); i++) {
    const auto check = [&](const c10::IValue& value) {
      const bool may_be_elsewhere = !value.isTensor() || !value.toTensor().defined() || value.toTensor().dim() == 0;
      if (!may_be_elsewhere) refuse_elsewhere(value.toTensor(), name, arguments[i].name());
    };
    if (given[i].isTensor()) check(given[i]);
    else if (given[i].isList() && !(is_index && arguments[i].name() == "indices"))
      for (const auto& value : given[i].toListRef()) check(value);
  }
  {
    std::lock_guard<std::mutex> guard(guarded);
    operations++;
  }
  at::native::cpu_fallback(handle, stack);
}

at::Tensor convolution(const at::Tensor& x, const at::Tensor& weight, const std::optional<at::Tensor>& bias, c10::SymIntArrayRef stride,
                       c10::SymIntArrayRef padding, c10::SymIntArrayRef dilation, bool transposed, c10::SymIntArrayRef output_padding,
                       c10::SymInt groups) {
  refuse_elsewhere(x, "convolution", "input");
  refuse_elsewhere(weight, "convolution", "weight");
  TORCH_CHECK(x.scalar_type() == weight.scalar_type(), "Input type (", x.scalar_type(), ") and weight type (", weight.scalar_type(),
              ") should be the same");
  std::optional<at::Tensor> added;
  if (bias && bias->defined()) {
    refuse_elsewhere(*bias, "convolution", "bias");
    added = as_processor_sees_it(*bias);
  }
  return on_card(at::convolution_symint(as_processor_sees_it(x), as_processor_sees_it(weight), added, stride, padding, dilation, transposed,
                                        output_padding, groups));
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> convolution_backward(const at::Tensor& gradient, const at::Tensor& x,
                                                                    const at::Tensor& weight, c10::SymIntArrayRef stride,
                                                                    c10::SymIntArrayRef padding, c10::SymIntArrayRef dilation,
                                                                    bool transposed, c10::SymIntArrayRef output_padding,
                                                                    c10::SymInt groups, std::array<bool, 3> wanted) {
  refuse_elsewhere(gradient, "convolution_backward", "gradient");
  refuse_elsewhere(x, "convolution_backward", "input");
  const std::vector<c10::SymInt> bias_size{transposed ? weight.sym_size(1) * groups : weight.sym_size(0)};
  const auto [of_x, of_weight, of_bias] = at::convolution_backward_symint(
      as_processor_sees_it(gradient), as_processor_sees_it(x), as_processor_sees_it(weight), c10::OptionalArrayRef<c10::SymInt>(bias_size),
      stride, padding, dilation, transposed, output_padding, groups, wanted);
  return {on_card(of_x), on_card(of_weight), on_card(of_bias)};
}

int64_t attention_choice(const at::Tensor&, const at::Tensor&, const at::Tensor&, const std::optional<at::Tensor>&, double, bool,
                         std::optional<double>, bool) {
  return static_cast<int64_t>(sdp::SDPBackend::math);
}

TORCH_LIBRARY_IMPL(_, PrivateUse1, m) { m.fallback(torch::CppFunction::makeFromBoxedFunction<&compute>()); }

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  m.impl("empty.memory_format", empty);
  m.impl("empty_strided", empty_strided);
  m.impl("resize_", at::native::resize_);
  m.impl("set_.source_Storage_storage_offset", set_storage);
  m.impl("_copy_from", copy_from);
  m.impl("_copy_from_and_resize", copy_from_and_resize);
  m.impl("_local_scalar_dense", number);
  m.impl("alias", at::native::alias);
  m.impl("as_strided", at::native::as_strided_tensorimpl);
  m.impl("unfold", at::native::unfold);
  m.impl("view", at::native::view);
  m.impl("view_as_complex", at::native::view_as_complex);
  m.impl("view_as_real", at::native::view_as_real);
  m.impl("_reshape_alias", at::native::_reshape_alias);
  m.impl("native_group_norm", torch::CppFunction::makeFromBoxedFunction<&compute>());  // PyTorch's own for all devices wants views
  m.impl("_fused_sdp_choice", attention_choice);
  m.impl("convolution_overrideable", convolution);
  m.impl("convolution_backward_overrideable", convolution_backward);
}

}  // namespace

PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {
  at::RegisterPrivateUse1HooksInterface(&hooks);
  m.def("held", [] { return held; }, "Bytes on the card.");
  m.def("operations", [] { return operations; }, "How many operations the card has been given.");
}

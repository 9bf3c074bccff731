// A target is what libFuzzer calls with bytes; `seeds` and `mutate` serve the driver that stands in
// for libFuzzer where there is no Clang.
#pragma once
#include <cstddef>
#include <cstdint>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

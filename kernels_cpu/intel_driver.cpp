// Times Intel's sparse JIT on command: a pair of layers, A [m, k] then B [k, m], s8 weights in blocks of 4 x 1.
//
//   intel_driver M K TOKENS PANEL MICRO_OC WEIGHTS      WEIGHTS: a file of A's then B's bytes, row by row
//   in   CALLS                                         out  seconds a pair, wall time
//   in   dump                                          out  A's results for the first 4 tokens of the first panel, a line a token
//
// Compiled here, on demand, against the library of intel-extension-for-transformers 1.4.2. No header of it is needed: the
// classes below are declared by their exported constructors, with room for what they hold; only tensor_desc, which lies in
// vectors, is declared as it is. Activations are u8 [tokens / panel][k][panel], code (3 i) mod 251 at place i.
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <string>
#include <unordered_map>
#include <vector>

namespace jd {
enum class kernel_kind : uint8_t { sparse_matmul = 1 };
enum class kernel_prop : uint8_t { forward_inference = 1 };
enum class engine_kind : uint8_t { cpu = 1 };
enum class data_type : uint8_t { u8 = 4, s8 = 5, fp32 = 10, s32 = 11 };
enum class format_type : uint8_t { ab = 2, bsr = 10 };

struct postop_attr {
  float unused[4];
};

class tensor_desc {
 public:
  tensor_desc(const std::vector<int64_t>& shape, const data_type& type, const format_type& format);
  virtual ~tensor_desc();

 private:
  std::vector<int64_t> shape_;
  data_type type_;
  format_type format_;
};

class operator_desc {
 public:
  operator_desc(const kernel_kind&, const kernel_prop&, const engine_kind&, const std::vector<tensor_desc>&,
                const std::unordered_map<std::string, std::string>&, const std::vector<postop_attr>&);

 private:
  alignas(64) char room_[1024];
};

class kernel_desc_proxy {
 public:
  explicit kernel_desc_proxy(const operator_desc&);

 private:
  alignas(64) char room_[256];
};

class kernel_proxy {
 public:
  explicit kernel_proxy(const kernel_desc_proxy&);
  void execute(const std::vector<const void*>& arguments) const;

 private:
  alignas(64) char room_[256];
};

template <typename T>
class bsr_data_t {
 public:
  ~bsr_data_t();

 private:
  alignas(64) char room_[512];
};

namespace spns {
template <typename T, int64_t group>
bsr_data_t<T> reorder_to_bsr_group(int64_t rows, int64_t columns, int64_t block_rows, int64_t block_columns, const T*);
}
}  // namespace jd

namespace {

template <typename T>
T* aligned(size_t count) {
  return static_cast<T*>(std::aligned_alloc(64, (count * sizeof(T) + 63) / 64 * 64));
}

// One layer with its kernel; what the library points to is never freed.
struct Layer {
  Layer(int64_t rows, int64_t columns, int64_t panels, int64_t panel, const std::string& micro_oc, const int8_t* weights,
        const uint8_t* input, int8_t* output) {
    using namespace jd;
    auto* packed = new bsr_data_t<int8_t>(spns::reorder_to_bsr_group<int8_t, 4>(rows, columns, 4, 1, weights));
    auto* bias = aligned<int32_t>(rows);
    auto* scales = aligned<float>(rows);
    for (int64_t row = 0; row < rows; ++row) {
      double squares = 0;
      for (int64_t column = 0; column < columns; ++column) {
        const double weight = weights[row * columns + column];
        squares += weight * weight;
      }
      bias[row] = 0;
      scales[row] = squares > 0 ? static_cast<float>(0.2 / __builtin_sqrt(squares)) : 1.0f;  // keeps codes spread
    }
    const std::vector<tensor_desc> tensors = {
        {{rows, columns}, data_type::s8, format_type::bsr},
        {{panels, columns, panel}, data_type::u8, format_type::ab},
        {{rows, 1}, data_type::s32, format_type::ab},
        {{panels, rows, panel}, data_type::s8, format_type::ab},
        {{rows, 1}, data_type::fp32, format_type::ab},
    };
    const std::unordered_map<std::string, std::string> attributes = {
        {"sparse_ptr", std::to_string(reinterpret_cast<uint64_t>(packed))}, {"micro_oc", micro_oc}};
    auto* description = new operator_desc(kernel_kind::sparse_matmul, kernel_prop::forward_inference, engine_kind::cpu,
                                          tensors, attributes, {});
    kernel = new kernel_proxy(*new kernel_desc_proxy(*description));
    arguments = {weights, input, bias, output, scales, nullptr, nullptr, nullptr};
  }

  void run() const { kernel->execute(arguments); }

  const jd::kernel_proxy* kernel;
  std::vector<const void*> arguments;
};

}  // namespace

int main(int count, char** words) {
  if (count != 7) {
    std::fprintf(stderr, "usage: intel_driver M K TOKENS PANEL MICRO_OC WEIGHTS\n");
    return 2;
  }
  const int64_t m = std::atoll(words[1]), k = std::atoll(words[2]), tokens = std::atoll(words[3]);
  const int64_t panel = std::atoll(words[4]), panels = tokens / panel;
  auto* weights = aligned<int8_t>(2 * m * k);
  std::ifstream file(words[6], std::ios::binary);
  if (panels * panel != tokens || !file.read(reinterpret_cast<char*>(weights), 2 * m * k)) {
    std::fprintf(stderr, "the weights are cut short, or the panels do not fill the tokens\n");
    return 2;
  }
  auto* input = aligned<uint8_t>(tokens * k);
  auto* middle = aligned<int8_t>(tokens * m);
  auto* output = aligned<int8_t>(tokens * k);
  for (int64_t place = 0; place < tokens * k; ++place) input[place] = 3 * place % 251;
  const Layer first(m, k, panels, panel, words[5], weights, input, middle);
  // s8 codes are read as u8: another value, the same bytes.
  const Layer second(k, m, panels, panel, words[5], weights + m * k, reinterpret_cast<uint8_t*>(middle), output);
  std::string order;
  std::cout.precision(9);
  std::cout << "ready" << std::endl;
  while (std::getline(std::cin, order)) {
    first.run();
    second.run();
    if (order == "dump") {
      for (int64_t token = 0; token < 4; ++token) {
        for (int64_t row = 0; row < m; ++row) std::cout << int(middle[row * panel + token]) << ' ';
        std::cout << std::endl;
      }
      continue;
    }
    const int calls = std::atoi(order.c_str());
    const auto begin = std::chrono::steady_clock::now();
    for (int call = 0; call < calls; ++call) {
      first.run();
      second.run();
    }
    const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - begin;
    std::cout << taken.count() / calls << std::endl;
  }
  return 0;
}

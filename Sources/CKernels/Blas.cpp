// OpenBLAS, loaded at the first matmul. On x86-64 libtorch's own BLAS is MKL, whose kernels for AMD processors stop
// at AVX2 and on some reach a fraction of their speed; OpenBLAS has kernels for each. It runs single-threaded, and
// libtorch's threads split the rows or columns, so that there is one thread pool and not two.
//
// PEFT_BLAS=openblas in the environment uses OpenBLAS on any processor; PEFT_BLAS=torch never uses it.
#include "ckernels/Blas.hpp"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <string>
#include <utility>

#include "ckernels/Parallel.hpp"

#if defined(__linux__)
#include <dlfcn.h>
#endif
#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace {

/// Fortran's sgemm: column-major, all arguments by pointer.
using Sgemm = void (*)(const char *, const char *, const int *, const int *, const int *, const float *, const float *,
                       const int *, const float *, const int *, const float *, float *, const int *);

struct Library {
    Sgemm sgemm = nullptr;
    std::string name;
};

/// Whether libtorch's matmuls use MKL on a processor that it isn't optimized for.
bool is_worth_it() {
#if defined(__x86_64__)
    unsigned level = 0, words[3] = {0, 0, 0};
    if (!__get_cpuid(0, &level, &words[0], &words[2], &words[1])) return false;
    return std::memcmp(words, "AuthenticAMD", 12) == 0 || std::memcmp(words, "HygonGenuine", 12) == 0;
#else
    return false;
#endif
}

#if defined(__linux__)
/// Loads `name` from the folder of the library that contains `address`, or from the loader's search path.
void *open_beside(const void *address, const char *name) {
    Dl_info info;
    if (address != nullptr && dladdr(address, &info) != 0 && info.dli_fname != nullptr) {
        std::string path = info.dli_fname;
        path.replace(path.find_last_of('/') + 1, std::string::npos, name);
        if (void *library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL)) return library;
    }
    return dlopen(name, RTLD_NOW | RTLD_LOCAL);
}
#endif

/// An address in the library beside which OpenBLAS is installed.
const void *neighbor = nullptr;

Library load() {
#if defined(__linux__)
    const char *choice = std::getenv("PEFT_BLAS");
    if (choice != nullptr ? std::strcmp(choice, "openblas") != 0 : !is_worth_it()) return {};
    // SciPy's wheel prefixes its symbols; system packages don't.
    for (auto [file, prefix] : {std::pair{"libscipy_openblas.so", "scipy_"}, {"libopenblas.so.0", ""}}) {
        void *library = open_beside(neighbor, file);
        if (library == nullptr) continue;
        auto symbol = [&](const char *name) { return dlsym(library, (std::string(prefix) + name).c_str()); };
        auto sgemm = reinterpret_cast<Sgemm>(symbol("sgemm_"));
        auto set_threads = reinterpret_cast<void (*)(int)>(symbol("openblas_set_num_threads"));
        auto core = reinterpret_cast<char *(*)()>(symbol("openblas_get_corename"));
        if (sgemm == nullptr || set_threads == nullptr) continue;
        set_threads(1);
        return {sgemm, std::string("OpenBLAS") + (core != nullptr ? std::string(" (") + core() + ")" : "")};
    }
#endif
    return {};
}

const Library &library() {
    static const Library loaded = load();
    return loaded;
}

/// The sgemm of the MKL inside libtorch, NULL without one. Within a parallel region it is single-threaded.
Sgemm mkl_sgemm() {
#if defined(__linux__) && defined(__x86_64__)
    static const Sgemm found =
        dlsym(RTLD_DEFAULT, "MKL_Get_Max_Threads") == nullptr ? nullptr : reinterpret_cast<Sgemm>(dlsym(RTLD_DEFAULT, "sgemm_"));
    return found;
#else
    return nullptr;
#endif
}

thread_local bool is_allowed = true;

}  // namespace

namespace ckernels {

void look_for_blas_beside(const void *address) { neighbor = address; }

const char *blas_name() { return has_fast_blas() ? library().name.c_str() : ""; }

void allow_blas(bool allowed) { is_allowed = allowed; }

bool has_fast_blas() { return is_allowed && library().sgemm != nullptr; }

bool has_serial_blas() { return is_allowed && (library().sgemm != nullptr || mkl_sgemm() != nullptr); }

void serial_product(bool a_is_transposed, bool b_is_transposed, int64_t m, int64_t n, int64_t k, float alpha, const float *a,
                    int64_t a_stride, const float *b, int64_t b_stride, float beta, float *c, int64_t c_stride) {
    if (m == 0 || n == 0) return;
    // Row-major C = A B is column-major Cᵀ = Bᵀ Aᵀ, and a row-major matrix is its transpose in column-major order.
    char first = b_is_transposed ? 'T' : 'N', second = a_is_transposed ? 'T' : 'N';
    int width = static_cast<int>(n), height = static_cast<int>(m), depth = static_cast<int>(k);
    int b_step = static_cast<int>(b_stride), a_step = static_cast<int>(a_stride), c_step = static_cast<int>(c_stride);
    const Sgemm sgemm = library().sgemm != nullptr ? library().sgemm : mkl_sgemm();
    sgemm(&first, &second, &width, &height, &depth, &alpha, b, &b_step, a, &a_step, &beta, c, &c_step);
}

void matrix_product(bool a_is_transposed, bool b_is_transposed, int64_t m, int64_t n, int64_t k, const float *a, int64_t a_stride,
                    const float *b, int64_t b_stride, float beta, float *c, int64_t c_stride) {
    auto part = [&](int64_t row, int64_t rows, int64_t column, int64_t columns) {
        serial_product(a_is_transposed, b_is_transposed, rows, columns, k, 1, a + row * (a_is_transposed ? 1 : a_stride),
                       a_stride, b + column * (b_is_transposed ? b_stride : 1), b_stride, beta, c + row * c_stride + column,
                       c_stride);
    };
    // Chunks are multiples of the kernels' tiles; the longer side is split, so that little is packed twice.
    bool by_rows = m >= n;
    int64_t length = by_rows ? m : n, threads = available_threads();
    int64_t step = std::max<int64_t>(64, ((length + threads - 1) / threads + 15) / 16 * 16);
    ckernels::parallel_for(0, (length + step - 1) / step, 1, [&](int64_t begin, int64_t end) {
        int64_t from = begin * step, count = std::min(length, end * step) - from;
        if (by_rows) part(from, count, 0, n);
        else part(0, m, from, count);
    });
}

}  // namespace ckernels

// From Python to a kernel: a table of the module's kernels, each with the types of its parameters, as the C++ compiler
// knows them.
#pragma once

#include <link.h>
#include <string.h>

#include <tuple>
#include <type_traits>
#include <utility>

#include "runtime.h"

namespace cuda_on_cpu {

// Static shared memory: blocks run one after the other, so that static variables will do. Where several run at a time,
// each has a thread of the system for itself, and so they are the thread's. The mode "poison" has them so too: they are
// then all that a module keeps for each thread, but for an anchor by which they are found, to be filled before each
// block.
#if defined(CUDA_ON_CPU_COOPERATIVE) || defined(CUDA_ON_CPU_THREAD) || defined(CUDA_ON_CPU_POISON)
#define CUDA_ON_CPU_SHARED_BY_THREAD
inline void find_shared(char **begin, char **end) {
  static thread_local char anchor;
  struct Place {
    char *anchor, **begin, **end;
  } place{&anchor, begin, end};
  dl_iterate_phdr(
      [](dl_phdr_info *library, size_t, void *data) {
        const Place &place = *static_cast<Place *>(data);
        char *own = static_cast<char *>(library->dlpi_tls_data);
        for (int k = 0; own && k < library->dlpi_phnum; ++k) {
          char *stop = own + library->dlpi_phdr[k].p_memsz;
          if (library->dlpi_phdr[k].p_type != PT_TLS || place.anchor < own || place.anchor >= stop) continue;
          *place.begin = own, *place.end = stop;
          return 1;
        }
        return 0;
      },
      &place);
}
#else
constexpr void (*find_shared)(char **, char **) = nullptr;
#endif

// NumPy's letter of a type.
template <typename T>
constexpr char letter() {
  constexpr bool is_signed = std::is_signed_v<T>;
  if constexpr (std::is_same_v<T, bool>) return '?';
  else if constexpr (std::is_same_v<T, float>) return 'f';
  else if constexpr (std::is_same_v<T, double>) return 'd';
  else if constexpr (std::is_integral_v<T> && sizeof(T) == 1) return is_signed ? 'b' : 'B';
  else if constexpr (std::is_integral_v<T> && sizeof(T) == 2) return is_signed ? 'h' : 'H';
  else if constexpr (std::is_integral_v<T> && sizeof(T) == 4) return is_signed ? 'i' : 'I';
  else if constexpr (std::is_integral_v<T> && sizeof(T) == 8) return is_signed ? 'q' : 'Q';
  else static_assert(sizeof(T) == 0, "a kernel's parameter is a number, a bool, a pointer to such, or a struct");
}

// The letter of a parameter; 'V' of a struct.
template <typename P>
constexpr char letter_of() {
  if constexpr (std::is_class_v<P>) return 'V';
  else return letter<std::remove_cv_t<std::remove_pointer_t<std::remove_cv_t<P>>>>();
}

// "*=*fif": for each parameter '*' if it is a pointer, '=' if it is a number, '{' if it is a struct; then for each the
// letter, of what a pointer points to. And the size of each.
template <typename... P>
struct Signature {
  static constexpr char text[] = {(std::is_pointer_v<P> ? '*' : std::is_class_v<P> ? '{' : '=')...,
                                  letter_of<P>()..., '\0'};
  static constexpr unsigned sizes[] = {sizeof(P)..., 0};
};

// One argument from its slot, which has a struct's address.
template <typename T>
void get(T &argument, const char *slot) {
  if constexpr (std::is_class_v<T>) slot = *reinterpret_cast<const char *const *>(slot);
  memcpy(static_cast<void *>(&argument), slot, sizeof argument);
}

// One launch; the arguments lie in slots of 8 bytes.
template <auto kernel, typename... P, size_t... i>
const char *start(const Launch &launch, const char *slots, std::index_sequence<i...>) {
  std::tuple<std::remove_cv_t<P>...> arguments;
  (get(std::get<i>(arguments), slots + 8 * i), ...);
  const auto body = [](void *tuple) { kernel(std::get<i>(*static_cast<decltype(arguments) *>(tuple))...); };
  return run(launch, {body, &arguments, find_shared});
}

struct Entry {
  const char *name, *signature;
  const unsigned *sizes;
  const char *(*start)(const Launch &, const char *slots);
};

template <auto kernel, typename... P>
constexpr Entry entry(const char *name, void (*)(P...)) {
  return {name, Signature<P...>::text, Signature<P...>::sizes, [](const Launch &launch, const char *slots) {
            return start<kernel, P...>(launch, slots, std::index_sequence_for<P...>{});
          }};
}

// What compile.py writes behind a source, for each of its kernels.
template <auto kernel>
constexpr Entry entry(const char *name) {
  return entry<kernel>(name, kernel);
}

}  // namespace cuda_on_cpu

/* What Python calls of a kernel library: arguments become addresses, sizes and numbers.

   A call looks at each argument, writes a token for it as `compiled/entries.py` describes them, and
   picks the function of that signature; the interpreter lock is released while it runs.  The few
   functions of Python are declared here, not included: all are in its stable interface since 3.11,
   so one library serves every version. */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#if defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#define HAS_DOTPROD (getauxval(AT_HWCAP) >> 20 & 1)
#elif defined(__APPLE__)
#define HAS_DOTPROD 1 /* every Mac on Arm */
#else
#define HAS_DOTPROD 0
#endif
#if defined(__x86_64__)
#include <cpuid.h>
static int has_avxvnni(void) { /* by name, older compilers do not know it */
  unsigned a, b, c, d;
  return __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a >> 4 & 1);
}
#define HAS_AVXVNNI has_avxvnni()
#endif

typedef struct Object Object;
typedef struct {
  void *data; Object *owner; intptr_t bytes, itemsize; int readonly, ndim;
  char *format; intptr_t *shape, *strides, *suboffsets; void *internal;
} Buffer;
extern Object _Py_NoneStruct, PyFloat_Type;
extern Object *PyExc_TypeError;
extern int PyObject_GetBuffer(Object *, Buffer *, int);
extern void PyBuffer_Release(Buffer *);
extern int PyBuffer_ToContiguous(void *, const Buffer *, intptr_t, char);
extern int PyBuffer_FromContiguous(const Buffer *, const void *, intptr_t, char);
extern Object *PyErr_NoMemory(void);
extern int PyObject_CheckBuffer(Object *), PyObject_IsInstance(Object *, Object *);
extern intptr_t PyTuple_Size(Object *);
extern Object *PyTuple_GetItem(Object *, intptr_t);
extern double PyFloat_AsDouble(Object *);
extern long long PyLong_AsLongLong(Object *);
extern Object *PyErr_Occurred(void), *PyFloat_FromDouble(double);
extern Object *PyLong_FromLongLong(long long), *PyLong_FromUnsignedLongLong(unsigned long long);
extern Object *PyErr_Format(Object *, const char *, ...);
extern void *PyEval_SaveThread(void);
extern void PyEval_RestoreThread(void *);
extern void Py_IncRef(Object *);

enum { MOST = 64, CELLS = 7 * MOST, FLAGS = 0x10 | 0x08 | 0x04 }; /* strides, shape, format */

/* Numba's own calling convention: where the result goes, where an error goes, the arguments. */
typedef int Kernel(void **, void **, int64_t *, int64_t *, double *);
typedef struct { const char *signature; char result; Kernel *run; } Variant;
typedef struct { const char *name; int count; const Variant *variants; } Entry;
typedef struct { int (*supported)(void); const Entry *entries; } Target;

#include "table.c"

int rvq_np_supported(int target) { return targets[target].supported(); }

const Entry *rvq_np_entry(int target, const char *name) {
  for (const Entry *each = targets[target].entries; each->name; each++)
    if (!strcmp(each->name, name)) return each;
  return 0;
}

static char letter_of(const char *format, intptr_t itemsize) {
  while (*format == '@' || *format == '=' || *format == '<') format++;
  if (*format == 'f' || *format == 'd' || *format == '?') return format[1] ? 0 : *format;
  const char *kind = strchr("bhilqBHILQ", *format);
  if (!*format || format[1] || !kind || itemsize > 8) return 0;
  return (*format >= 'a' ? "?bh?i???l" : "?BH?I???L")[itemsize];
}

static int contiguous(const Buffer *b) {
  intptr_t step = b->itemsize;
  for (int n = b->ndim - 1; n >= 0; n--) {
    if (b->shape[n] == 0) return 1;
    if (b->shape[n] != 1 && b->strides[n] != step) return 0;
    step *= b->shape[n];
  }
  return 1;
}

static const Variant *variant_of(const Entry *entry, const char *signature) {
  for (int n = 0; n < entry->count; n++)
    if (!strcmp(entry->variants[n].signature, signature)) return &entry->variants[n];
  return 0;
}

static int64_t bits_of(double number) {
  int64_t bits;
  memcpy(&bits, &number, 8);
  return bits;
}

Object *rvq_np_call(const Entry *entry, Object *arguments) {
  Buffer buffers[MOST];
  void *copies[MOST] = {0}; /* in C order, of arrays of other strides */
  int places[MOST], strided = 0; /* where the cells of an array begin; -1: it is in C order */
  int64_t cells[CELLS], whole = 0;
  double real = 0;
  char signature[4 * MOST + 1], *end = signature;
  int held = 0, at = 0;
  Object *result = 0;
  intptr_t count = PyTuple_Size(arguments);
  if (count > MOST) return PyErr_Format(PyExc_TypeError, "%s: too many arguments", entry->name);
  for (intptr_t n = 0; n < count; n++) {
    Object *each = PyTuple_GetItem(arguments, n);
    if (end != signature) *end++ = ' ';
    if (each == &_Py_NoneStruct) {
      *end++ = 'n';
    } else if (PyObject_CheckBuffer(each)) {
      Buffer *b = &buffers[held];
      if (PyObject_GetBuffer(each, b, FLAGS)) goto done;
      places[held++] = -1;
      char letter = letter_of(b->format ? b->format : "B", b->itemsize);
      if (!letter || b->ndim > 3) {
        PyErr_Format(PyExc_TypeError, "%s: argument %d has a type of no kernel", entry->name, (int)n);
        goto done;
      }
      *end++ = letter;
      if (b->ndim == 0) { /* a number of NumPy's */
        if (letter == 'd' || letter == 'l' || letter == 'L') memcpy(&cells[at], b->data, 8);
        else if (letter == '?') { cells[at] = *(char *)b->data; end[-1] = 'l'; }
        else if (letter == 'f') { cells[at] = bits_of(*(float *)b->data); end[-1] = 'd'; }
        else if (letter == 'i') { cells[at] = *(int32_t *)b->data; end[-1] = 'l'; }
        if (letter == 'L') end[-1] = 'l';
        at++;
        continue;
      }
      *end++ = '0' + b->ndim;
      if (!contiguous(b)) {
        *end++ = 'A';
        places[held - 1] = at;
        strided++;
      }
      cells[at++] = (int64_t)(intptr_t)b->data;
      for (int d = 0; d < b->ndim; d++) cells[at++] = b->shape[d];
      for (int d = 0; d < b->ndim; d++) cells[at++] = b->strides[d];
    } else if (PyObject_IsInstance(each, &PyFloat_Type)) {
      cells[at++] = bits_of(PyFloat_AsDouble(each));
      *end++ = 'd';
    } else {
      cells[at++] = PyLong_AsLongLong(each);
      if (PyErr_Occurred()) goto done;
      *end++ = 'l';
    }
  }
  *end = 0;
  const Variant *found = variant_of(entry, signature);
  if (!found && strided) { /* of arrays in C order: such copies are made, and copied back */
    char *kept = signature;
    for (const char *each = signature; each <= end; each++)
      if (*each != 'A') *kept++ = *each;
    found = variant_of(entry, signature);
    for (int n = 0; found && n < held; n++) {
      if (places[n] < 0) continue;
      Buffer *b = &buffers[n];
      copies[n] = malloc(b->bytes ? b->bytes : 1);
      if (!copies[n]) { PyErr_NoMemory(); goto done; }
      if (PyBuffer_ToContiguous(copies[n], b, b->bytes, 'C')) goto done;
      cells[places[n]] = (int64_t)(intptr_t)copies[n];
      int64_t step = b->itemsize;
      for (int d = b->ndim - 1; d >= 0; step *= b->shape[d], d--)
        cells[places[n] + 1 + b->ndim + d] = step;
    }
  }
  if (!found) {
    PyErr_Format(PyExc_TypeError, "%s was not compiled for (%s); RVQ_NP_KERNELS=0 uses no library",
                 entry->name, signature);
    goto done;
  }
  void *state = PyEval_SaveThread(), *nothing = 0, *error = 0;
  found->run(&nothing, &error, cells, &whole, &real);
  PyEval_RestoreThread(state);
  for (int n = 0; n < held; n++)
    if (copies[n] && !buffers[n].readonly &&
        PyBuffer_FromContiguous(&buffers[n], copies[n], buffers[n].bytes, 'C')) goto done;
  if (found->result == 'd') result = PyFloat_FromDouble(real);
  else if (found->result == 'l') result = PyLong_FromLongLong(whole);
  else if (found->result == 'L') result = PyLong_FromUnsignedLongLong((uint64_t)whole);
  else { Py_IncRef(&_Py_NoneStruct); result = &_Py_NoneStruct; }
done:
  while (held) {
    free(copies[--held]);
    PyBuffer_Release(&buffers[held]);
  }
  return result;
}

/* What kernels call for a few functions of the C library: of its oldest version, where it has
   several, so that a library made here runs on older systems, too. */
#if defined(__GLIBC__) && defined(__x86_64__)
__asm__(".symver log2, log2@GLIBC_2.2.5");
#elif defined(__GLIBC__) && defined(__aarch64__)
__asm__(".symver log2, log2@GLIBC_2.17");
#endif
double rvq_np_log2(double x) { return log2(x); }
double numba_frexp(double x, int *exponent) { return frexp(x, exponent); }
double numba_ldexp(double x, int exponent) { return ldexp(x, exponent); }
float numba_nextafterf(float x, float towards) { return nextafterf(x, towards); }
double numba_nextafter(double x, double towards) { return nextafter(x, towards); }

/* Labels pictures with a .tflite file of a kfcn bundle, on the LiteRT C API alone.
 *
 *   segment MODEL.tflite [-t THREADS] [-w WARMUP] [-r RUNS] IN.ppm OUT.pgm [IN.ppm OUT.pgm ...]
 *
 * IN is a binary PPM (P6, 8 bits) of the size that the model takes; OUT is a binary PGM (P5) of the
 * same size whose values are the classes. One line of JSON on standard output gives the time of
 * each picture's run and of RUNS more on the last picture, in milliseconds. Exit code 0: all is
 * written; 1: it is not, and one line on standard error says why.
 */
#define _POSIX_C_SOURCE 200809L
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "litert_c.h"

#define SIGNATURE "segment"
#define CHECK(call) check(call, #call)

typedef struct {
  LiteRtEnvironment environment;
  LiteRtCompiledModel compiled;
  LiteRtParamIndex signature;
  LiteRtTensorBuffer input, output;
  int height, width;
} Segmenter;

static void fail(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  fputs("segment: error: ", stderr);
  vfprintf(stderr, format, arguments);
  fputc('\n', stderr);
  va_end(arguments);
  exit(1);
}

static void check(LiteRtStatus status, const char *call) {
  if (status) fail("status %d from %s", status, call);
}

/* LiteRT does not check a file before it follows its offsets: one that is cut short crashes it. */
static void crashed(int number) {
  static const char text[] = "segment: error: LiteRT crashed; is the model file whole?\n";
  if (write(2, text, sizeof text - 1) < 0) _exit(2);
  (void)number;
  _exit(1);
}

static double milliseconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return 1e3 * now.tv_sec + 1e-6 * now.tv_nsec;
}

static LiteRtSignature find_signature(LiteRtModel model, const char *path,
                                      LiteRtParamIndex *index) {
  LiteRtParamIndex count = 0;
  CHECK(LiteRtGetNumModelSignatures(model, &count));
  for (*index = 0; *index < count; ++*index) {
    LiteRtSignature signature;
    const char *key;
    CHECK(LiteRtGetModelSignature(model, *index, &signature));
    CHECK(LiteRtGetSignatureKey(signature, &key));
    if (!strcmp(key, SIGNATURE)) return signature;
  }
  fail("%s: no signature '%s'", path, SIGNATURE);
  return NULL;
}

static void load(Segmenter *net, const char *path, int threads) {
  LiteRtModel model;
  LiteRtTensor tensor;
  LiteRtRankedTensorType in, out;
  LiteRtOptions options;
  LiteRtOpaqueOptions cpu;
  LiteRtTensorBufferRequirements needs;

  CHECK(LiteRtCreateEnvironment(0, NULL, &net->environment));
  if (LiteRtCreateModelFromFile(net->environment, path, &model))
    fail("%s: LiteRT cannot load it", path);
  LiteRtSignature signature = find_signature(model, path, &net->signature);
  CHECK(LiteRtGetSignatureInputTensorByIndex(signature, 0, &tensor));
  CHECK(LiteRtGetRankedTensorType(tensor, &in));
  CHECK(LiteRtGetSignatureOutputTensorByIndex(signature, 0, &tensor));
  CHECK(LiteRtGetRankedTensorType(tensor, &out));
  net->height = in.dimensions[1];
  net->width = in.dimensions[2];
  if (in.element_type != kElementTypeUInt8 || (in.rank & 127) != 4 || in.dimensions[0] != 1 ||
      in.dimensions[3] != 3)
    fail("%s: expected a uint8 image (1, H, W, 3)", path);
  if (out.element_type != kElementTypeUInt8 || (out.rank & 127) != 3 ||
      out.dimensions[1] != net->height || out.dimensions[2] != net->width)
    fail("%s: expected a uint8 label map (1, H, W) of the image's size", path);

  CHECK(LiteRtCreateOptions(&options));
  CHECK(LiteRtSetOptionsHardwareAccelerators(options, kAcceleratorCpu));
  /* XNNPACK's options are one line of TOML under its name. */
  char *toml = malloc(32);
  snprintf(toml, 32, "num_threads = %d\n", threads);
  CHECK(LiteRtCreateOpaqueOptions("xnnpack", toml, free, &cpu));
  CHECK(LiteRtAddOpaqueOptions(options, cpu));
  CHECK(LiteRtCreateCompiledModel(net->environment, model, options, &net->compiled));

  CHECK(LiteRtGetCompiledModelInputBufferRequirements(net->compiled, net->signature, 0, &needs));
  CHECK(LiteRtCreateManagedTensorBufferFromRequirements(net->environment, &in, needs,
                                                        &net->input));
  CHECK(LiteRtGetCompiledModelOutputBufferRequirements(net->compiled, net->signature, 0, &needs));
  CHECK(LiteRtCreateManagedTensorBufferFromRequirements(net->environment, &out, needs,
                                                        &net->output));
}

static double run(Segmenter *net) {
  double start = milliseconds();
  CHECK(LiteRtRunCompiledModel(net->compiled, net->signature, 1, &net->input, 1, &net->output));
  return milliseconds() - start;
}

/* The next number of a PPM header; white space and comments before it are skipped. */
static int header_number(FILE *file) {
  int c, number = 0, digits = 0;
  while ((c = fgetc(file)) == '#' || c == ' ' || c == '\t' || c == '\n' || c == '\r')
    if (c == '#')
      while ((c = fgetc(file)) != '\n' && c != EOF) {}
  for (; c >= '0' && c <= '9' && digits < 6; c = fgetc(file), ++digits)
    number = 10 * number + (c - '0');
  /* The one white space after a number is part of the header. */
  return digits ? number : -1;
}

static void read_picture(Segmenter *net, const char *path) {
  size_t bytes = (size_t)3 * net->height * net->width;
  void *memory;
  FILE *file = fopen(path, "rb");
  if (!file) fail("%s: cannot be opened", path);
  if (fgetc(file) != 'P' || fgetc(file) != '6') fail("%s: not a binary PPM (P6)", path);
  int width = header_number(file), height = header_number(file), top = header_number(file);
  if (width != net->width || height != net->height || top != 255)
    fail("%s: %dx%d with values to %d, expected %dx%d with values to 255 (width x height)", path,
         width, height, top, net->width, net->height);
  CHECK(LiteRtLockTensorBuffer(net->input, &memory, kLockWrite));
  if (fread(memory, 1, bytes, file) != bytes) fail("%s: ends before the last pixel", path);
  CHECK(LiteRtUnlockTensorBuffer(net->input));
  fclose(file);
}

static void write_labels(Segmenter *net, const char *path) {
  size_t bytes = (size_t)net->height * net->width;
  void *memory;
  FILE *file = fopen(path, "wb");
  if (!file) fail("%s: cannot be written", path);
  CHECK(LiteRtLockTensorBuffer(net->output, &memory, kLockRead));
  fprintf(file, "P5\n%d %d\n255\n", net->width, net->height);
  if (fwrite(memory, 1, bytes, file) != bytes || fclose(file)) fail("%s: cannot be written", path);
  CHECK(LiteRtUnlockTensorBuffer(net->output));
}

static int whole_number(const char *option, const char *text) {
  char *end;
  long value = strtol(text, &end, 10);
  if (end == text || *end || value < 0 || value > 1000000)
    fail("%s %s: expected a whole number of 0 to 1000000", option, text);
  return (int)value;
}

int main(int count, char **arguments) {
  int threads = 1, warmup = 0, runs = 0, at = 2;
  for (; at + 1 < count && arguments[at][0] == '-'; at += 2) {
    int value = whole_number(arguments[at], arguments[at + 1]);
    if (!strcmp(arguments[at], "-t")) threads = value;
    else if (!strcmp(arguments[at], "-w")) warmup = value;
    else if (!strcmp(arguments[at], "-r")) runs = value;
    else fail("unknown option %s", arguments[at]);
  }
  if (at >= count || (count - at) % 2 || threads < 1)
    fail("usage: segment MODEL.tflite [-t THREADS] [-w WARMUP] [-r RUNS] IN.ppm OUT.pgm [...]");

  Segmenter net;
  signal(SIGSEGV, crashed);
  signal(SIGBUS, crashed);
  load(&net, arguments[1], threads);
  printf("{\"images_ms\": [");
  for (int i = at; i < count; i += 2) {
    read_picture(&net, arguments[i]);
    printf("%s%.4f", i > at ? ", " : "", run(&net));
    write_labels(&net, arguments[i + 1]);
  }
  printf("], \"runs_ms\": [");
  for (int i = 0; i < warmup; ++i) run(&net);
  for (int i = 0; i < runs; ++i) printf("%s%.4f", i ? ", " : "", run(&net));
  printf("]}\n");
  if (fflush(stdout)) fail("standard output cannot be written");
  /* The library's own threads may still be ending: its destructors are not waited for. */
  _Exit(0);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as a YAML bootstrap. */
#include "tests/fuzz/fuzz_doc.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    return fuzz_doc(kb_doc_parse_yaml, kb_str_make((const char *)data, size));
}

/* SPDX-License-Identifier: Apache-2.0 */
/* The certificates in use, for /certs: roots and leaves of every context that serves. */
#include "tls/tls_certs_page.h"

#include <openssl/bn.h>
#include <openssl/err.h>

#include "envoy/admin/v3/certs.pb-c.h"
#include "google/protobuf/timestamp.pb-c.h"
#include "proto/pb.h"

#define SECONDS_OF_DAY 86400
#define NAME(kind)     ENVOY__ADMIN__V3__SUBJECT_ALTERNATE_NAME__NAME_##kind

static void *message_new(const ProtobufCMessageDescriptor *type, struct kb_arena *arena)
{
    return kb_pb_new(type, arena);
}

static int64_t seconds_of(const ASN1_TIME *time)
{
    struct tm parts;

    return ASN1_TIME_to_tm(time, &parts) == 1 ? (int64_t)timegm(&parts) : 0;
}

static Google__Protobuf__Timestamp *timestamp(int64_t seconds, struct kb_arena *arena)
{
    Google__Protobuf__Timestamp *message =
        message_new(&google__protobuf__timestamp__descriptor, arena);

    message->seconds = seconds;
    return message;
}

static char *text_dup(struct kb_str text, struct kb_arena *arena)
{
    return (char *)(uintptr_t)kb_str_dup(arena, text).p;
}

static void names_add(Envoy__Admin__V3__CertificateDetails *details, X509 *certificate,
                      struct kb_arena *arena)
{
    GENERAL_NAMES *names = X509_get_ext_d2i(certificate, NID_subject_alt_name, NULL, NULL);
    int count = KB_MIN(sk_GENERAL_NAME_num(names), KB_TLS_SANS_MAX);

    details->subject_alt_names = kb_arena_calloc(arena, (size_t)(KB_MAX(count, 0) + 1) *
                                                            sizeof(*details->subject_alt_names));
    for (int i = 0; i < count; i++) {
        const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, i);
        char address[KB_TLS_SAN_TEXT_MAX];
        Envoy__Admin__V3__SubjectAlternateName *message;

        if (name->type != GEN_DNS && name->type != GEN_URI && name->type != GEN_IPADD) {
            continue;
        }
        message = message_new(&envoy__admin__v3__subject_alternate_name__descriptor, arena);
        message->name_case = name->type == GEN_DNS   ? NAME(DNS)
                             : name->type == GEN_URI ? NAME(URI)
                                                     : NAME(IP_ADDRESS);
        message->dns = text_dup(kb_tls_san_text(name, address), arena);
        details->subject_alt_names[details->n_subject_alt_names++] = message;
    }
    sk_GENERAL_NAME_pop_free(names, GENERAL_NAME_free);
}

static Envoy__Admin__V3__CertificateDetails *details_make(X509 *certificate, struct kb_str path,
                                                          int64_t now_s, struct kb_arena *arena)
{
    Envoy__Admin__V3__CertificateDetails *details =
        message_new(&envoy__admin__v3__certificate_details__descriptor, arena);
    BIGNUM *serial = ASN1_INTEGER_to_BN(X509_get0_serialNumber(certificate), NULL);
    char *hex = serial != NULL ? BN_bn2hex(serial) : NULL;
    int64_t end = seconds_of(X509_get0_notAfter(certificate));

    details->path = text_dup(path, arena);
    details->serial_number = text_dup(kb_str_from_cstr(hex != NULL ? hex : ""), arena);
    for (char *p = details->serial_number; *p != '\0'; p++) {
        *p = kb_ascii_lower(*p);
    }
    details->days_until_expiration = end > now_s ? (uint64_t)((end - now_s) / SECONDS_OF_DAY) : 0;
    details->valid_from = timestamp(seconds_of(X509_get0_notBefore(certificate)), arena);
    details->expiration_time = timestamp(end, arena);
    names_add(details, certificate, arena);
    OPENSSL_free(hex);
    BN_free(serial);
    return details;
}

void kb_tls_certs_page_add(struct Envoy__Admin__V3__Certificates *page,
                           const struct kb_tls_context *context, struct kb_worker *main,
                           struct kb_arena *arena)
{
    Envoy__Admin__V3__Certificate *message =
        message_new(&envoy__admin__v3__certificate__descriptor, arena);
    int64_t now_s = (int64_t)(kb_loop_wall_ns(&main->loop) / UINT64_C(1000000000));
    struct kb_tls_trust *trust = context->validation != NULL ? context->validation->trust : NULL;

    message->ca_cert = kb_arena_calloc(arena, sizeof(*message->ca_cert));
    message->cert_chain =
        kb_arena_calloc(arena, (context->certificate_count + 1) * sizeof(*message->cert_chain));
    if (trust != NULL) {
        STACK_OF(X509) *roots =
            kb_tls_pem_certificates(kb_tls_trust_ca_pem(trust), kb_tls_worker_get(main)->lib);

        if (roots != NULL) {
            message->ca_cert[message->n_ca_cert++] =
                details_make(sk_X509_value(roots, 0), kb_tls_trust_path(trust), now_s, arena);
            sk_X509_pop_free(roots, X509_free);
        }
    }
    for (size_t i = 0; i < context->certificate_count; i++) {
        const struct kb_tls_certificate_local *local =
            kb_tls_certificate_local_get(context->certificates[i], main);

        if (local != NULL) {
            message->cert_chain[message->n_cert_chain++] =
                details_make(local->leaf, context->certificates[i]->path, now_s, arena);
        }
    }
    page->certificates[page->n_certificates++] = message;
    ERR_clear_error();
}

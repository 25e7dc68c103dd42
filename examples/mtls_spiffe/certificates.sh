#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Makes an authority and three identities in the folder $1: NAME.pem and NAME.key. An identity is a URI
# in the certificate (a SPIFFE ID), as a mesh gives one to each workload; host names play no part.
set -eu
mkdir -p "$1"
cd "$1"

openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj "/O=example" \
    -keyout ca.key -out ca.pem 2>/dev/null

for name in client server other; do
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$name" \
        -keyout "$name.key" -out "$name.csr" 2>/dev/null
    cat >"$name.ext" <<END
subjectAltName = critical, URI:spiffe://example.org/ns/shop/sa/$name
keyUsage = critical, digitalSignature
extendedKeyUsage = clientAuth, serverAuth
basicConstraints = critical, CA:FALSE
END
    openssl x509 -req -in "$name.csr" -CA ca.pem -CAkey ca.key -CAcreateserial -days 1 \
        -extfile "$name.ext" -out "$name.pem" 2>/dev/null
    rm "$name.csr" "$name.ext"
done
echo "made: $(echo *.pem)"

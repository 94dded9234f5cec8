# shellcheck shell=bash
# How a certificate is issued. simpleenroll, simplereenroll, serverkeygen and ../examples/short-lived read this in with
# `source`, which sets `profile` and `lifetime` (settings.sh) and brings the helpers for policies (policy.sh).
#
#   issue PROFILE LIFETIME NAMES             print a certificate for the CSR, and end
#   issue_with_key KIND PROFILE LIFETIME NAMES   the same for a new key; print both
#
# `openssl ca` makes the certificate. ../../openssl-ca/register.sh says how it gets into the register, and what a full
# disk, a kill or a power cut can do to it.
# shellcheck source-path=SCRIPTDIR source=policy.sh
source "${BASH_SOURCE[0]%/*}/policy.sh"
# shellcheck source-path=SCRIPTDIR source=settings.sh
source "${BASH_SOURCE[0]%/*}/settings.sh"
# shellcheck source-path=SCRIPTDIR source=../../openssl-ca/register.sh
source "${BASH_SOURCE[0]%/*}/../../openssl-ca/register.sh"
rotate=${BASH_SOURCE[0]%/*}/../../openssl-ca/rotate
seal=${BASH_SOURCE[0]%/*}/../seal
export REGISTER_DIR=$EST_TMPDIR

# lock: wait for the CA, if its lock is not held yet. If the CA stays busy, end the script with 69; nothing was issued.
lock() {
    [[ ! ${locked-} ]] || return 0
    exec 9>>"$EST_CA_DIR/ca.lock"
    flock -w $((EST_TIMEOUT / 2)) 9 && locked=yes && return
    echo "the CA in $EST_CA_DIR is busy: its lock is taken" >&2
    [[ ! ${serial-} ]] || rm -f "$EST_CA_DIR/newcerts/$serial.pem"
    exit 69
}

# find_ca_end: set `ca_end` to when the CA's certificate ends, in seconds since the epoch. `openssl x509` tells it once;
# issuer.end keeps the answer together with the certificate that it is about, so a new certificate makes the file void.
find_ca_end() {
    local issuer=$EST_CA_DIR/issuer.pem pem known text
    [[ -e $issuer ]] || issuer=$EST_CA_DIR/cacert.pem
    slurp pem "$issuer"
    slurp known "$EST_CA_DIR/issuer.end"
    ca_end=${known%%$'\n'*}
    [[ $pem && $known == "$ca_end"$'\n'"$pem" ]] && return
    text=$(SSL_CERT_FILE=/dev/null openssl x509 -in "$issuer" -noout -enddate -dateopt iso_8601) || exit 70
    ca_end=$(date -d "${text#*=}" +%s)
    printf '%s\n%s' "$ca_end" "$pem" 2>/dev/null >"$EST_CA_DIR/issuer.end" || : # a file cut off is void, too
}

# find_end LIFETIME: set `end` to when a certificate ends that begins now. It never outlives the CA.
find_end() {
    local seconds ca_end
    _seconds_in "$1"
    find_ca_end
    end=$((EPOCHSECONDS + seconds))
    ((end > ca_end)) || return 0
    printf -v end '%(%F %T)T' "$ca_end"
    ((EPOCHSECONDS < ca_end)) || { echo "the CA's certificate ended at $end UTC: nothing can be issued" >&2 && exit 70; }
    echo "lifetime $1 is cut: the certificate ends with the CA's own, at $end UTC" >&2
    end=$ca_end
}

# issue PROFILE LIFETIME NAMES [TEXT]: PROFILE is a file in openssl-ca/profiles, LIFETIME is a time such as 90d, NAMES
# are the subject alternative names, DER in hex, or nothing. TEXT is printed in front of the certificate.
issue() {
    local end until extensions config=$EST_CA_DIR/openssl.cnf
    find_end "$2"
    printf -v until '%(%Y%m%d%H%M%SZ)T' "$end"
    [[ -f $EST_CA_DIR/profiles/$1 ]] || {
        echo "no profile $1 in $EST_CA_DIR/profiles; there are: $(cd "$EST_CA_DIR/profiles" && echo *)" >&2
        exit 70
    }
    slurp extensions "$EST_CA_DIR/profiles/$1"
    extensions+=${3:+$'\n'"subjectAltName = DER:$3"}
    has_register_dir "$config" || exit 70
    ! needs_all "$EST_CA_DIR" || lock
    certify "$EST_CA_DIR" -config "$config" -enddate "$until" -extfile /dev/stdin \
        -in "$EST_CSR_FILE" ${EST_CHANGE_SUBJECT:+-utf8 -subj "$EST_CHANGE_SUBJECT"} <<<"$extensions" || {
        [[ -e $REGISTER_DIR/log ]] || exit 70
        cat "$REGISTER_DIR/log" >&2
        ! hsm_is_away || exit 69
        # The client reads what the policy in openssl.cnf has against its request, and nothing else.
        grep -aE '^(The .*(missing|between|ASN.1 type)$|CA cert.* request|emailAddress type|ERROR:There)' "$REGISTER_DIR/log" ||
            exit 70
        exit 77
    }
    file_certificate "$EST_CA_DIR" || exit 70
    lock
    enter_row "$EST_CA_DIR" || exit 70
    ((RANDOM % 250)) || "$rotate" || : # one run in 250 archives old rows, so that `openssl ca` stays fast
    printf %s "${4:+$4$'\n'}" "$certificate"
    exit
}

# issue_with_key KIND PROFILE LIFETIME NAMES: make a key such as p-256, and a certificate for it with the CSR's subject.
# Print the key, encrypted if the client wants that, and the certificate. The key is in no file at any time.
issue_with_key() {
    local key end options protect=("$seal" --keys "$EST_CA_DIR/keygen-keys")
    protect+=(--certificates "$EST_CA_DIR/keygen-certificates")
    protect+=(--signer "$EST_CA_DIR/server.pem" --signer-key "$EST_CA_DIR/private/serverkey.pem")
    case $1 in
        p-256 | p-384 | p-521) options=(EC -pkeyopt "ec_paramgen_curve:P-${1#p-}") ;;
        rsa-2048 | rsa-3072 | rsa-4096) options=(RSA -pkeyopt "rsa_keygen_bits:${1#rsa-}") ;;
        ed25519) options=(ED25519) ;;
        *) echo "no kind of key: $1; there are: p-256 p-384 p-521 rsa-2048 rsa-3072 rsa-4096 ed25519" >&2 && exit 78 ;;
    esac
    key=$(openssl genpkey -algorithm "${options[@]}")
    # The subject travels in a certificate to a CSR of our own, byte for byte and never as text.
    openssl req -x509 -config /dev/null -in "$EST_CSR_FILE" -key <(printf %s "$key") -copy_extensions none |
        SSL_CERT_FILE=/dev/null openssl x509 -x509toreq -signkey <(printf %s "$key") -out "$EST_TMPDIR/keygen.pem"
    EST_CSR_FILE=$EST_TMPDIR/keygen.pem
    [[ $EST_KEYGEN_PROTECT == none ]] || key=$("${protect[@]}" < <(printf '%s\n' "$key")) || {
        end=$?
        printf '%s\n' "$key" # the words of `seal` for the client
        exit "$end"
    }
    issue "${@:2}" "$key"
}

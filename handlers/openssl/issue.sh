# shellcheck shell=bash
# What simpleenroll, simplereenroll, serverkeygen and ../examples/short-lived share; each reads it in with `source`.
#
#   refuse WORDS                           end: no, with these words for the client
#   issue PROFILE LIFETIME NAMES [TEXT]    print TEXT, if any, and a certificate for the CSR, and end
#   is_revoked FILE                        whether a certificate is revoked
#
# `openssl ca` makes the certificate; ../../openssl-ca/register.sh says how it gets into the register, and what a full disk,
# a kill or a power cut can do to it.
# shellcheck source-path=SCRIPTDIR source=../../openssl-ca/register.sh
source "${BASH_SOURCE[0]%/*}/../../openssl-ca/register.sh"
rotate=${BASH_SOURCE[0]%/*}/../../openssl-ca/rotate
export REGISTER_DIR=$EST_TMPDIR

refuse() {
    printf '%s\n' "$1"
    exit 77
}

# lock: wait for the CA, if its lock is not held yet; one that stays busy ends the script with 69, and nothing was issued.
lock() {
    [[ ! ${locked-} ]] || return 0
    exec 9>>"$EST_CA_DIR/ca.lock"
    flock -w $((EST_TIMEOUT / 2)) 9 && locked=yes && return
    echo "the CA in $EST_CA_DIR is busy: its lock is taken" >&2
    [[ ! ${serial-} ]] || rm -f "$EST_CA_DIR/newcerts/$serial.pem"
    exit 69
}

# issue PROFILE LIFETIME NAMES [TEXT]: PROFILE is a file in openssl-ca/profiles, LIFETIME is in seconds, NAMES are the
# subject alternative names, DER in hex, or nothing.
issue() {
    local until extensions config=$EST_CA_DIR/openssl.cnf
    printf -v until '%(%Y%m%d%H%M%SZ)T' $((EPOCHSECONDS + $2))
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
        # What the policy in openssl.cnf has against the request is for the client to read, nothing else is.
        grep -aE '^(The .*(missing|between|type)|CA cert.* request|emailAddress type|ERROR:There)' "$REGISTER_DIR/log" ||
            exit 70
        exit 77
    }
    file_certificate "$EST_CA_DIR" || exit 70
    lock
    enter_row "$EST_CA_DIR" || exit 70
    ((RANDOM % 250)) || "$rotate" || : # sometimes, for a long index is slow; if it fails, the log says why
    printf %s "${4:+$4$'\n'}" "$certificate"
    exit
}

# shellcheck shell=bash
# Helpers for policies. Each answers yes or no about the request that the script serves:
#
#   allowed_suffix example.org || refuse "not ours to certify: $fault"
#
# After a no about a name, `fault` says which name it was, or that there was none. ../README.md, "Helpers for policies",
# has a table of the helpers. ../python/policy.py has the same ones for Python, and a test compares their answers.
#
# This file sources nothing, so that `authorize` starts fast. SSL_CERT_FILE=/dev/null stands before each `openssl x509`,
# because that command loads all roots of the system at its start, which takes 40 ms.

fault=

# refuse WORDS: end the script with a no (403); the client reads these words.
refuse() {
    printf '%s\n' "$1"
    exit 77
}

# allowed_suffix DOMAIN...: whether the request names a host, and every name in it (CN and SAN) is a host in one of
# these domains. "example.org" is that host and all below it, ".example.org" only what is below it. Wildcards,
# addresses, mailboxes and URIs are no hosts.
allowed_suffix() {
    local LC_ALL=C subject=${EST_CSR_SUBJECT-} part parts asked=() is_inside=
    ((${#subject} <= 4096)) || { fault="its subject is too long" && return 1; }
    # RFC 4514: "," and "+" separate the parts of a subject, unless an odd number of backslashes stands before them.
    IFS=,+ read -rd '' -a parts <<<"$subject," || :
    for part in "${parts[@]}"; do
        [[ $is_inside || $part != CN=* ]] || asked+=("$part")
        part=${part##*[!\\]} is_inside=
        ((${#part} % 2 == 0)) || is_inside=yes
    done
    for part in "${!EST_CSR_SAN_@}"; do asked+=("${!part}"); done
    ((${#asked[@]})) || { fault="it names no host" && return 1; }
    for part in "${asked[@]}"; do
        _is_host_in "$part" "$@" || { fault=$part && return 1; }
    done
}

# _is_host_in NAME DOMAIN...: whether a name such as DNS:a.example.org or CN=a.example.org is a host in one of the
# domains.
_is_host_in() {
    local label='[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?' host domain
    ((${#1} <= 4 + 253)) && [[ $1 =~ ^(CN=|DNS:)($label(\.$label)*)$ ]] || return 1
    for domain in "${@:2}"; do
        host=${BASH_REMATCH[2],,}
        [[ $domain == .* ]] || host=.$host # the domain itself will do
        domain=.${domain#.}
        [[ $host != *"${domain,,}" ]] || return 0
    done
    return 1
}

# only_user_name: whether the request asks for CN=REMOTE_USER, and for no other name in subject or SAN.
only_user_name() {
    [[ ${REMOTE_USER-} && ${EST_CSR_SUBJECT-} == "CN=$REMOTE_USER" && ! "${!EST_CSR_SAN_*}" && ! ${EST_CSR_EXT_SAN-} ]]
}

# only_certificate_names: whether the request asks for the subject of the client's verified certificate, and in its SAN
# for no name but the hosts and mailboxes of this certificate.
only_certificate_names() {
    local LC_ALL=C name key
    local -A own=()
    fault=${EST_CSR_SUBJECT-}
    [[ ${SSL_CLIENT_VERIFY-} == SUCCESS && -v SSL_CLIENT_S_DN && $fault == "$SSL_CLIENT_S_DN" ]] || return 1
    for name in "${!SSL_CLIENT_SAN_DNS_@}"; do key=dns:${!name} && own[${key,,}]=yes; done
    for name in "${!SSL_CLIENT_SAN_Email_@}"; do key=email:${!name} && own[${key,,}]=yes; done
    for name in "${!EST_CSR_SAN_@}"; do
        fault=${!name}
        [[ $fault == *:* && ${own[${fault,,}]-} ]] || return 1
    done
}

# is_listed VALUE FILE: whether the value is a line of the file; capital or small letters make no difference.
is_listed() {
    [[ $1 && $1 != *$'\n'* ]] && LC_ALL=C grep -qixF -e "$1" -e "$1"$'\r' -- "$2"
}

# is_user_of_label FILE: whether the client has logged in as a user who may use this label. The file has a label, a blank
# and a user name on each line; "-" is for requests without a label.
is_user_of_label() {
    local entry="${EST_LABEL:--} ${REMOTE_USER-}"
    fault=${REMOTE_USER:-a client without a password}
    [[ ${REMOTE_USER-} && $entry != *$'\n'* ]] && LC_ALL=C grep -qxF -e "$entry" -e "$entry"$'\r' -- "$1"
}

# office_hours FROM TO: whether it is Monday to Friday, from one hour to the other, UTC. "office_hours 8 18" ends at
# 18:00.
office_hours() {
    local TZ=UTC day hour
    printf -v day '%(%u)T' "$EPOCHSECONDS"
    printf -v hour '%(%k)T' "$EPOCHSECONDS"
    ((day < 6 && hour >= $1 && hour < $2))
}

# is_revoked FILE: whether the register of this CA says that the certificate in the file is revoked. A file without
# a certificate ends the script (500).
is_revoked() {
    local number
    number=$(SSL_CERT_FILE=/dev/null openssl x509 -in "$1" -noout -serial) || exit 78
    # The old index, too: while somebody types `openssl ca`, it is the only one for a moment.
    grep -qs $'^R\t.*\t'"${number#serial=}"$'\t' "$EST_CA_DIR"/index.txt{,.old}
}

# ends_within TIME FILE: whether the certificate in the file ends within this time, such as 30d, or has ended. A file
# without a certificate ends the script (500).
ends_within() {
    local seconds text
    _seconds_in "$1"
    text=$(SSL_CERT_FILE=/dev/null openssl x509 -in "$2" -noout -checkend "$seconds") || :
    [[ $text == *expire* ]] || exit 78
    [[ $text != *"not expire"* ]]
}

# _seconds_in TIME: set `seconds` to a length of time such as 90d, 12h, 10m, 30s or 30; anything else ends the script.
# issue.sh uses it, too.
_seconds_in() {
    local number=${1%[smhd]} unit=1
    case $1 in
        *m) unit=60 ;;
        *h) unit=3600 ;;
        *d) unit=86400 ;;
    esac
    if [[ $number && $number != *[!0-9]* ]] && ((${#number} <= 10)); then
        seconds=$((10#$number * unit))
        ((seconds < 1 || seconds > 36525 * 86400)) || return 0
    fi
    echo "'$1' is no length of time: write a number with s, m, h or d behind it, 1s to 36525d" >&2
    exit 78
}

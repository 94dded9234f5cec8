# shellcheck shell=bash
# The functions that create-ca, rollover, issue, revoke, crl and find share; each reads this file with `source`.
#
# The files of one signing key are in generations/N, and the link `current` names the N that signs. A generation is
# complete before that one link is renamed. So if a script is killed, the CA is the old one or the new one, complete.
umask 077
# SSL_CERT_FILE: each `openssl x509` loads all roots of the system at its start otherwise, which takes 40 ms.
export TZ=UTC LC_ALL=C.UTF-8 SSL_CERT_FILE=/dev/null
# shellcheck source-path=SCRIPTDIR source=register.sh
source "${BASH_SOURCE[0]%/*}/register.sh"

die() {
    printf '%s: %s\n' "${0##*/}" "$1" >&2
    exit 1
}

# quietly COMMAND...: run a command, and show its stderr only if it fails.
quietly() { "$@" 2>"$tmp/log" || die "$(<"$tmp/log")"; }

# enter DIR: go there, take the lock, and make a directory $tmp that is removed at the end.
enter() {
    cd "$1" 2>/dev/null || die "no directory: $1"
    exec 9>>ca.lock
    flock -w 30 9 || die "the CA in $PWD is busy"
    rm -rf .{create-ca,rollover,issue,revoke,crl,find,rotate}.* # left by a killed script
    tmp=$(mktemp -d "$PWD/.${0##*/}.XXXXXX")
    trap 'rm -rf "$tmp"' EXIT
    export REGISTER_DIR=$tmp/register
    mkdir "$REGISTER_DIR"
}

# enter_ca DIR: the same for an existing CA. Sets `generations` to its directories, the one that signs first.
enter_ca() {
    local number
    [[ -L $1/current ]] || die "no CA in $1; if it is a copy, copy it with its links (cp -a)"
    enter "$1"
    mend_register . || die "the register of the CA in $PWD is not whole"
    finish_server
    number=$(readlink current)
    generations=()
    for ((number = ${number##*/}; number; number--)); do generations+=("generations/$number"); done
}

# is_serial TEXT: whether it can be a serial number. Sets `serial` to its form in index.txt.
is_serial() {
    [[ ${1//:/} =~ ^(0[xX])?0*([0-9A-Fa-f]+)$ ]] || return
    serial=${BASH_REMATCH[2]^^}
    ((${#serial} % 2 == 0)) || serial=0$serial
}

# as_in_index TEXT: print its form in index.txt, where bytes that are not printable ASCII are in hex.
as_in_index() {
    local LC_ALL=C i
    for ((i = 0; i < ${#1}; i++)); do
        if [[ ${1:i:1} == [[:print:]] ]]; then printf %s "${1:i:1}"; else printf '\\x%02X' "'${1:i:1}"; fi
    done
}

# key_kind NAME: set the kind of new keys: RSA, Ed25519 or the name of a curve.
key_kind() {
    case $1 in
        RSA) key=(-algorithm RSA -pkeyopt rsa_keygen_bits:3072) ;;
        Ed25519 | ED25519) key=(-algorithm ED25519) ;;
        *) key=(-algorithm EC -pkeyopt "ec_paramgen_curve:$1") ;;
    esac
}

# key_kind_of FILE: set the kind of new keys to the kind of the key in a file.
key_kind_of() {
    local text
    text=$(openssl pkey -in "$1" -noout -text_pub)
    if [[ $text =~ "ASN1 OID: "([^[:space:]]+) || $text =~ ^(ED25519) ]]; then
        key_kind "${BASH_REMATCH[1]}"
    else
        key_kind RSA
        [[ ! $text =~ \(([0-9]+)\ bit ]] || key=("${key[@]:0:3}" "rsa_keygen_bits:${BASH_REMATCH[1]}")
    fi
}

# moment SECONDS: print a time, in seconds since the epoch, in the form that `openssl ca` takes.
moment() { printf '%(%Y%m%d%H%M%SZ)T' "$1"; }

# starts FILE, ends FILE: print the time at which a certificate begins or ends to be valid, in seconds since the epoch.
starts() { date_of -startdate "$1"; }
ends() { date_of -enddate "$1"; }
date_of() {
    local text
    text=$(openssl x509 -in "$2" -noout "$1" -dateopt iso_8601)
    date -d "${text#*=}" +%s
}

# living FILE...: print the certificates in these files that have not expired, each once, without those in $revoked.
living() {
    local pem='' line text
    local -A seen=()
    while IFS= read -r line; do
        [[ $line != -----BEGIN* ]] || pem=
        pem+=$line$'\n'
        [[ $line == -----END* && ! ${seen[$pem]-} ]] || continue
        seen[$pem]=yes
        text=$(openssl x509 -noout -serial -enddate -dateopt iso_8601 <<<"$pem")
        [[ $text =~ serial=([0-9A-F]+).*notAfter=(.*) ]]
        [[ " ${revoked-} " != *" ${BASH_REMATCH[1]} "* ]] || continue
        (($(date -d "${BASH_REMATCH[2]}" +%s) < EPOCHSECONDS)) || printf %s "$pem"
    done < <(cat "$@")
}

# whole FILE...: exit with an error unless these files are complete, since openssl does not notice a full disk.
whole() {
    local file text
    for file; do
        text=$(tail -n 1 "$file")
        [[ (! -s $file && $file == */chain.pem) || $text == "-----END "*"-----" ]] ||
            die "$file is cut off; is the disk full?"
    done
}

# on_disk DIR: exit with an error unless all PEM files in a directory are complete, and sync all files to the disk.
on_disk() {
    local file
    while IFS= read -rd '' file; do whole "$file"; done < <(find "$1" -name '*.pem' -type f -print0)
    find "$1" ! -type l -exec sync {} +
}

# make_key GENERATION URI: make the private key of a generation, of the kind in $key; or keep the URI of one in an HSM.
make_key() {
    [[ $2 ]] || { quietly openssl genpkey "${key[@]}" -out "$1/private/cakey.pem" && return; }
    [[ $2 == pkcs11:*\?*module-path=/* && $2 == *pin-source=/* ]] ||
        die "--hsm: the URI must begin with pkcs11: and have module-path and pin-source, absolute paths; see README.md"
    echo "$2" >"$1/private/cakey.uri"
}

# link_key DIR GENERATION: make the link to a key of this generation's kind, in a file or in an HSM, unless it is there.
# After a change from one kind to the other the former link leads nowhere.
link_key() {
    local name=cakey.pem
    [[ ! -e $2/private/cakey.uri ]] || name=cakey.uri
    [[ -L $1/private/$name ]] || quietly ln -s "../current/private/$name" "$1/private/$name"
}

# has_key DIR: whether the key of the CA, or of the generation, in DIR is there.
has_key() { [[ -e $1/private/cakey.pem || -e $1/private/cakey.uri ]]; }

# find_key_or_file DIR: set `key` to the options for the key of the CA in DIR, which is in an HSM or in a file.
find_key_or_file() {
    find_key "$1" || exit 1
    ((${#key[@]})) || key=(-keyfile "$1/private/cakey.pem")
}

# by_the_book DIR OPTION...: run `openssl ca` with openssl.cnf on a copy of the register, with key and certificate of the
# generation in DIR. The copy replaces the register when it is complete.
by_the_book() {
    local number key
    has_register_dir openssl.cnf || exit 1
    cp index.txt* crlnumber "$REGISTER_DIR"
    find_key_or_file "$1"
    quietly openssl ca -config openssl.cnf -cert "$1/issuer.pem" "${key[@]}" "${@:2}"
    number=$(<"$REGISTER_DIR/crlnumber")
    if ! [[ $number =~ ^[0-9A-F]+$ ]] || ! holds_all index.txt "$REGISTER_DIR/index.txt"; then
        die "openssl ca has written no whole register, and nothing has changed; is the disk full?"
    fi
    put . "$REGISTER_DIR/crlnumber"
    put . "$REGISTER_DIR/index.txt"
}

# sign DIR OUT OPTION...: make a certificate for the CA's own use, by the CA in DIR, without the policy of openssl.cnf.
# Serial numbers are random, unless there is a file `serial`.
sign() {
    local numbers='rand_serial    = yes'
    [[ ! -e $1/serial ]] || numbers="serial         = \$ENV::EST_CA_DIR/serial"
    certify "$1" -config /dev/stdin "${@:3}" <<END || die "$(cat "$REGISTER_DIR/log" || :)"
[ca]
default_ca     = ca
preserve       = yes
certificate    = \$ENV::EST_CA_DIR/issuer.pem
private_key    = \$ENV::EST_CA_DIR/private/cakey.pem
database       = \$ENV::REGISTER_DIR/index.txt
default_md     = default
policy         = anything
unique_subject = no
$numbers
[anything]
commonName     = optional
END
    enter_certificate "$1"
    printf %s "$certificate" >"$2"
}

# enter_certificate DIR: enter the certificate of `certify` in the register of the CA in DIR.
enter_certificate() {
    file_certificate "$1" || die "the CA in $1 can't be written"
    enter_row "$1" || die "the CA in $1 can't be written"
}

# make_issuing ROOT NEXT [OLD]: let the root certify the key in $tmp/csr for five years, or until the root expires, and
# fill the generation NEXT. It keeps the certificates of OLD's chain and anchors that the root has not revoked.
make_issuing() {
    local end last revoked
    revoked=$(awk -F'\t' '$1 == "R" { print $4 }' ORS=' ' "$1/index.txt")
    end=$((EPOCHSECONDS + 5 * 365 * 86400)) last=$(ends "$1/issuer.pem")
    sign "$1" "$2/issuer.pem" -enddate "$(moment $((end < last ? end : last)))" \
        -extfile openssl.cnf -extensions issuing -in "$tmp/csr"
    cp "$1/cacert.pem" "$2"
    living "$2/issuer.pem" "$1/current/links.pem" >"$2/links.pem"
    living "$2/issuer.pem" "$1/chain.pem" ${3:+"$3/chain.pem"} >"$2/chain.pem"
    living "$2/issuer.pem" "$1/anchors.pem" ${3:+"$3/anchors.pem"} >"$2/anchors.pem"
}

# add_name NAME: add a host name or an IP address to the subject alternative names in $names, unless it is there. Ends
# the script for a name that no certificate can hold.
add_name() {
    local LC_ALL=C fault='' one
    case $1 in
        *://*) fault="leave out what stands before and after the host" ;;
        '['*) fault="leave out the brackets" ;;
        *:*:*)
            one=IP:$1
            is_ipv6 "$1" || fault="an IPv6 address has eight groups of up to four hex digits, or :: in place of some"
            ;;
        *:*) fault="leave out the port" ;;
        *[!0-9.]*)
            one=DNS:$1
            case $1 in
                *[$'\x80'-$'\xff']*) fault="write a name with other letters than a to z in its ASCII form, xn--..." ;;
                *[!A-Za-z0-9.*-]*) fault="a host name has letters, digits, hyphens and dots" ;;
                ?*'*'* | '*' | '*'[!.]*) fault="a star stands alone, before the first dot" ;;
                .* | *. | *..* | -* | *.-* | *-.* | *-) fault="no part between dots is empty, or has a hyphen at an end" ;;
            esac
            ((${#1} <= 253)) || fault="a host name has 253 characters at most"
            [[ ! $1 =~ [^.]{64} ]] || fault="a part between dots has 63 characters at most"
            ;;
        *)
            one=IP:$1
            is_ipv4 "$1" || fault="an IPv4 address has four numbers from 0 to 255, with no 0 in front"
            ;;
    esac
    [[ ! $fault ]] || die "not a host name or IP address: ${1@Q}; $fault"
    [[ ,${names,,}, == *,"${one,,}",* ]] || names+=,$one
}

is_ipv4() {
    local number='(0|[1-9][0-9]?|1[0-9][0-9]|2[0-4][0-9]|25[0-5])'
    [[ $1 =~ ^$number\.$number\.$number\.$number$ ]]
}

is_ipv6() {
    local groups='[0-9A-Fa-f]{1,4}(:[0-9A-Fa-f]{1,4})*' colons=${1//[!:]/}
    if [[ $1 == *::* ]]; then
        [[ $1 =~ ^($groups)?::($groups)?$ ]] && ((${#colons} <= 7))
    else
        [[ $1 =~ ^$groups$ ]] && ((${#colons} == 7))
    fi
}

# make_server DIR NEXT NAMES [OUT]: make the gateway's certificate for the key in $tmp/csr, and its links to all anchors,
# in NEXT/server.pem or OUT. DIR is the CA whose register gets it.
make_server() {
    local end=$((EPOCHSECONDS + 397 * 86400)) last key
    last=$(ends "$2/issuer.pem")
    sed "s/crl-[0-9]*\.der/crl-${2##*/}.der/" profiles/est-server >"$tmp/extensions"
    echo "subjectAltName = $3" >>"$tmp/extensions"
    find_key_or_file "$2"
    sign "$1" "$tmp/server.pem" -enddate "$(moment $((end < last ? end : last)))" \
        -cert "$2/issuer.pem" "${key[@]}" -extfile "$tmp/extensions" -in "$tmp/csr"
    cat "$tmp/server.pem" "$2/links.pem" >"${4-"$2/server.pem"}"
}

# finish_server: put the key and the certificate in server.new/, if there are any, in the place of the gateway's. That
# takes two renames; if the script is killed between them, the next one that takes the lock finishes.
finish_server() {
    [[ -d server.new ]] || return 0
    [[ ! -e server.new/serverkey.pem ]] || put private server.new/serverkey.pem
    [[ ! -e server.new/server.pem ]] || put "$(readlink current)" server.new/server.pem
    if [[ ! server.pem -ef current/server.pem ]]; then
        ln -s current/server.pem "$tmp/server"
        mv -T "$tmp/server" server.pem
    fi
    rmdir server.new
    sync .
}

# make_crl OUT GENERATION...: make the revocation list, once for the key of each generation, in PEM and in DER.
make_crl() {
    local one end
    for one in "${@:2}"; do
        end=$(ends "$one/issuer.pem")
        if ! has_key "$one" || ((end <= EPOCHSECONDS)); then continue; fi
        by_the_book "$one" -gencrl -out "$tmp/crl"
        whole "$tmp/crl"
        openssl crl -in "$tmp/crl" -outform DER -out "$tmp/der"
        quietly openssl crl -in "$tmp/der" -inform DER -noout
        chmod 644 "$tmp/der"
        put . "$tmp/der" "crl-${one##*/}.der"
        cat "$tmp/crl" >>"$tmp/crls"
    done
    [[ -e $tmp/crls ]] || die "no key in $PWD to sign a CRL with"
    chmod 644 "$tmp/crls"
    put "${1%/*}" "$tmp/crls" "${1##*/}"
}

# point_profiles: set the number in the profiles' address of the list to that of the present key's list.
point_profiles() {
    local file number
    number=$(readlink current)
    for file in profiles/*; do
        [[ -e $file ]] || continue # the root above a sub-CA has no profiles
        sed "s/crl-[0-9]*\.der/crl-${number##*/}.der/" "$file" >"$tmp/profile"
        cmp -s "$tmp/profile" "$file" && continue
        chmod --reference="$file" "$tmp/profile"
        put profiles "$tmp/profile" "${file##*/}"
    done
}

# take_certificate FILE: copy a certificate of this CA to $tmp/certificate. Sets `serial`.
take_certificate() {
    quietly openssl x509 -in "$1" -out "$tmp/certificate"
    cat generations/*/issuer.pem >"$tmp/issuers"
    openssl verify -partial_chain -no_check_time -ignore_critical -trusted "$tmp/issuers" "$tmp/certificate" \
        >"$tmp/log" 2>&1 || die "not a certificate of the CA in $PWD: $1"
    serial=$(openssl x509 -in "$tmp/certificate" -noout -serial)
    serial=${serial#serial=}
}

# find_certificate: copy the certificate with the serial number $serial, from the register that has it.
find_certificate() {
    local file=newcerts/$serial.pem
    if [[ ! -e $file && -e certs.sqlite ]]; then
        file=${tmp##*/}/der
        in_sqlite "SELECT writefile('$file', der) FROM certificates WHERE serial = '$serial'" ||
            die "certs.sqlite can't be searched for $serial; name the certificate's file instead"
    fi
    [[ -e $file ]] || die "no certificate $serial in $PWD"
    quietly openssl x509 -in "$file" -out "$tmp/certificate"
}

# in_sqlite STATEMENT: run a statement on the register of handlers/python.
in_sqlite() { sqlite3 -bail -cmd '.timeout 10000' certs.sqlite "$1" >/dev/null; }

# mark_in_sqlite REASON: mark the certificate with $serial as revoked in that register. This is for people: the handlers
# of that set read index.txt too.
mark_in_sqlite() {
    [[ -e certs.sqlite ]] || return 0
    command -v sqlite3 >/dev/null || { echo "certs.sqlite is not marked: there is no sqlite3 here" && return; }
    in_sqlite "UPDATE certificates
        SET status = 'revoked', revoked_at = strftime('%Y-%m-%dT%H:%M:%S+00:00', 'now'), reason = nullif('$1', '')
        WHERE serial = '$serial' AND status = 'valid'" ||
        die "$serial is on the list, but is not marked in certs.sqlite"
}

# write_crl: make the revocation list of this CA.
write_crl() {
    point_profiles # a rollover may have been killed before it did
    make_crl current/crl.pem "${generations[@]}"
    [[ -e crl.pem ]] || { ln -sf current/crl.pem crl.pem && sync .; }
    echo "made $PWD/crl.pem, good until $(openssl crl -in crl.pem -noout -nextupdate | cut -d= -f2)"
}

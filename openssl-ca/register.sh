# shellcheck shell=bash
# The register of `openssl ca`: functions that enter certificates in it and keep it complete when something fails.
#
# handlers/openssl/issue.sh and lib.sh read this file with `source`.
#
# `openssl ca` writes all of index.txt again for each certificate, does not notice a full disk, and needs two renames to
# put the new file in place. So it works on an empty index.txt in $REGISTER_DIR, a temporary directory, and its one row
# is appended to the CA's index.txt. A certificate is safe to hand out only after these steps, in this order:
#
#   1. newcerts/SERIAL.pem is written and synced, and so is its directory (file_certificate)
#   2. under the lock on ca.lock, the row is appended to index.txt and synced (enter_row)
#   3. the certificate is printed
#
# A kill or a power cut in between leaves a certificate that no client has, and at worst an incomplete row, which the
# next script with the lock removes (mend_register). If a function fails, it prints the fault on stderr and returns 1.
# Starting a program takes most of the time here, so `slurp` reads files without one.

# A row: status, end of validity, time of revocation, serial number, file, subject, and the line feed, if present.
ROW=$'^([VRE])\t([0-9]+Z)\t([^\t]*)\t([0-9A-F]+)\t[^\t]*\t([^\t\n]*)(\n?)$'

# slurp NAME FILE: set a variable to the text of a file, or to an empty text if the file is missing.
slurp() {
    printf -v "$1" %s ''
    [[ ! -e $2 ]] || IFS= read -rd '' "$1" <"$2" || :
}

# needs_all DIR: whether `openssl ca` needs the whole register of the CA in DIR, to count serial numbers or to compare
# subjects. Then the caller of `certify` must hold the lock, too.
needs_all() {
    local attributes
    slurp attributes "$1/index.txt.attr"
    [[ -e $1/serial || $attributes != *unique_subject*no* ]]
}

# has_register_dir FILE: whether a configuration of `openssl ca` uses the register in $REGISTER_DIR, not the CA's own.
has_register_dir() {
    local text place="\$ENV::REGISTER_DIR/index.txt"
    slurp text "$1"
    [[ $text != *$'\n'database*=* || $text == *$'\n'database*=*"$place"* ]] && return
    echo "$1: it needs the line  database = $place" >&2
    return 1
}

# find_key DIR: set `key` to the options of `openssl ca` for the key of the CA in DIR, if it is in an HSM. Its PKCS#11 URI
# (RFC 7512) is in private/cakey.uri, in place of cakey.pem, with `module-path` and `pin-source`, a file with mode 0600.
# In a dry run the HSM is not asked: another key takes its place, with the CA's certificate for that key, since the
# signatures of a dry run count for nothing.
find_key() {
    local uri module pin algorithm=(EC -pkeyopt ec_paramgen_curve:P-256)
    key=()
    slurp uri "$1/private/cakey.uri"
    [[ $uri ]] || return 0
    if [[ ${EST_REPLAY-} ]]; then
        [[ $(openssl x509 -in "$1/issuer.pem" -noout -text) != *rsaEncryption* ]] || algorithm=(RSA)
        key=(-cert "$REGISTER_DIR/dry.crt" -keyfile "$REGISTER_DIR/dry.key")
        openssl genpkey -algorithm "${algorithm[@]}" -out "${key[3]}" &&
            openssl x509 -in "$1/issuer.pem" -signkey "${key[3]}" -out "${key[1]}"
        return
    fi
    [[ $uri =~ ^pkcs11:[^?]+\?.*module-path=(/[^&%[:space:]]+) ]] && module=${BASH_REMATCH[1]} &&
        [[ $uri =~ pin-source=(/[^&%[:space:]]+) ]] && pin=${BASH_REMATCH[1]} && [[ ! -e $1/private/cakey.pem ]] || {
        echo "$1/private: it must have cakey.pem or cakey.uri, and that module-path and pin-source, absolute paths" >&2
        return 1
    }
    [[ -e $pin && $(stat -c %a "$pin") == ?00 ]] || { echo "$pin: not there, or others can read it" >&2 && return 1; }
    export PKCS11_MODULE_PATH=$module
    key=(-engine pkcs11 -keyform engine -keyfile "${uri%%\?*}?pin-source=$pin")
}

# hsm_is_away: whether `openssl ca` has failed because it did not reach the HSM. A wrong PIN, or a key or a library that
# is not there, is a fault that a person must mend.
hsm_is_away() {
    local log
    slurp log "$REGISTER_DIR/log"
    [[ $log == *'failed loading private key'* ]] || return
    [[ $log == *'No matching initialized token'* || ! $log =~ 'PIN '|'private key was not found'|'Unable to load module' ]]
}

# certify DIR OPTION...: run `openssl ca` for the CA in DIR, with its key unless an option names another. Sets
# `certificate`, in PEM, its `serial` and its `row`. The CA has not changed yet, except for a file `serial`. The output of
# `openssl ca` is in $REGISTER_DIR/log.
certify() {
    local rows count=0 copy key
    certificate=''
    if needs_all "$1"; then
        mend_register "$1" && cp "$1"/index.txt* "$REGISTER_DIR" || return 1
        mapfile rows <"$REGISTER_DIR/index.txt"
        count=${#rows[@]}
    else
        : >"$REGISTER_DIR/index.txt"
        echo 'unique_subject = no' >"$REGISTER_DIR/index.txt.attr"
    fi
    key=()
    [[ " $* " == *' -keyfile '* ]] || find_key "$1" 2>"$REGISTER_DIR/log" || return 1
    EST_CA_DIR=$1 openssl ca -batch -notext "${key[@]}" "${@:2}" -outdir "$REGISTER_DIR" \
        -out "$REGISTER_DIR/certificate" 2>"$REGISTER_DIR/log" || return 1
    # It succeeds on a full disk as well, so check that the row and both copies of the certificate are complete.
    mapfile rows <"$REGISTER_DIR/index.txt"
    if ((${#rows[@]} == count + 1)) && [[ ${rows[-1]} =~ $ROW && ${BASH_REMATCH[1]} == V && ${BASH_REMATCH[6]} ]]; then
        row=${rows[-1]} serial=${BASH_REMATCH[4]}
        slurp certificate "$REGISTER_DIR/certificate"
        slurp copy "$REGISTER_DIR/$serial.pem"
        [[ $certificate != "-----BEGIN CERTIFICATE-----"*"-----END CERTIFICATE-----"$'\n' || $certificate != "$copy" ]] ||
            return 0
    fi
    echo "openssl ca has left no whole row in $REGISTER_DIR; is the disk full?" >>"$REGISTER_DIR/log"
    return 1
}

# file_certificate DIR: write the certificate of `certify` to newcerts/ of the CA in DIR, and sync it to the disk.
file_certificate() {
    local file=$1/newcerts/$serial.pem
    [[ ! -e $file ]] || { echo "$file is there already" >&2 && return 1; }
    printf %s "$certificate" >"$file" && sync "$file" "$1/newcerts" && return
    echo "nothing was issued: $file could not be written" >&2
    rm -f "$file"
    return 1
}

# enter_row DIR: append the row of `certify` to index.txt of the CA in DIR, and sync it to the disk. The caller holds
# the lock. If it fails, the register stays as it was, and the file in newcerts/ is removed.
enter_row() {
    local index=$1/index.txt
    if mend_register "$1"; then
        printf %s "$row" >>"$index" && sync "$index" && return
        if [[ $(tail -n 1 "$index") == "${row%$'\n'}" ]]; then
            truncate -s "-${#row}" "$index" # a row is ASCII
        else
            mend_register "$1" 2>/dev/null
        fi
    fi
    echo "nothing was issued: $index could not be written" >&2
    rm -f "$1/newcerts/$serial.pem"
    return 1
}

# put DIR FILE [NAME]: sync a file to the disk, then move it into DIR, over the file there. Both are on one file system.
put() { sync "$2" && mv -T "$2" "$1/${3-${2##*/}}" && sync "$1"; }

# holds_all OLD NEW: whether each row of OLD is in NEW, unchanged or revoked, and each row of NEW is complete.
holds_all() {
    [[ ! -s $2 || $(tail -c 1 "$2") == '' ]] && awk -F'\t' '
        NF != 6 { exit failed = 1 }
        FILENAME == ARGV[1] { row[$4] = $0; next }
        $4 in row && ($0 == row[$4] || $1 == "R" && row[$4] ~ /^[VE]/) { delete row[$4] }
        END { for (serial in row) failed = 1; exit failed }
    ' "$1" "$2"
}

# mend_register DIR: repair the register after a killed script or a power cut. The caller holds the lock.
mend_register() {
    local index=$1/index.txt last file fields=()
    for file in index.txt.attr crlnumber serial; do # `openssl ca` was killed between its renames, or the disk was full
        [[ -e $1/$file || ! -s $1/$file.new ]] || put "$1" "$1/$file.new" "$file" || return 1
        [[ -s $1/$file || ! -s $1/$file.old ]] || put "$1" "$1/$file.old" "$file" || return 1
    done
    if [[ ! -e $index ]]; then
        [[ -e $index.new && -e $index.old ]] ||
            { echo "$index is missing; bring it back from a backup" >&2 && return 1; }
        file=$index.old
        ! holds_all "$index.old" "$index.new" || file=$index.new
        put "$1" "$file" index.txt || return 1
        echo "$index was missing, as after a kill of openssl ca; it is what was ${file##*/} now" >&2
    fi
    [[ -s $index ]] || return 0
    IFS= read -rd '' last < <(exec tail -n 1 "$index") || :
    [[ ! $last =~ $ROW ]] || fields=("${BASH_REMATCH[@]}")
    [[ ! ${fields[6]-} ]] || return 0
    if [[ $last == *$'\n' ]]; then
        echo "$index: the last row has not six fields; correct it by hand" >&2
        return 1
    fi
    # A row of enter_row has its certificate in newcerts/. A row that an editor left without line feed is complete.
    file=$1/newcerts/${fields[4]-}.pem
    if [[ ${fields[4]-} && (! -s $file ||
        "subject=${fields[5]}" == "$(openssl x509 -in "$file" -noout -subject -nameopt compat)") ]]; then
        echo >>"$index"
        return
    fi
    truncate -s "-$(tail -n 1 "$index" | wc -c)" "$index" && sync "$index" || return 1
    echo "$index: cut off a row that a kill, a power cut or a full disk has left without its end: $last" >&2
}

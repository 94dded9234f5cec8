# shellcheck shell=bash
# The register of `openssl ca`: how a certificate gets into it, and how it stays whole whatever fails.
#
# handlers/openssl/issue.sh and lib.sh read this in with `source`.
#
# `openssl ca` writes the whole of index.txt anew for each certificate, does not notice a full disk, and needs two renames
# to put the new file in place. So it works on an empty register in $BOOKS here, and its one row is appended to index.txt.
# The order is what makes a certificate safe to hand out:
#
#   1. newcerts/SERIAL.pem is written and synced, and so is its directory (file_certificate)
#   2. under the lock on ca.lock, the row is appended to index.txt and synced (enter_row)
#   3. the certificate is printed
#
# A kill or a power cut in between leaves a certificate that no client has, and at worst a row without its end, which the
# next script under the lock cuts off (mend_register). Each function says on stderr what is wrong, and returns 1.
shopt -s extglob

# A row: status, end, when it was revoked, serial number, file, subject; and the line feed, if it is there.
ROW=$'^([VRE])\t([0-9]+Z)\t([^\t]*)\t([0-9A-F]+)\t[^\t]*\t([^\t\n]*)(\n?)$'

# needs_all DIR: whether `openssl ca` has to see the whole register of the CA in DIR, to count serial numbers or to compare
# subjects. Then the lock must be held for `certify`, too.
needs_all() {
    local attributes=''
    [[ ! -e $1/index.txt.attr ]] || IFS= read -rd '' attributes <"$1/index.txt.attr" || :
    [[ -e $1/serial || $attributes != *unique_subject*no* ]]
}

# certify DIR OPTION...: `openssl ca` for the CA in DIR. Sets `certificate`, in PEM, its `serial` and its `row`; nothing of
# the CA has changed yet. What `openssl ca` says is in $BOOKS/log.
certify() {
    local dir=$1 rows count=0
    [[ $dir == /* ]] || dir=$PWD/$dir
    [[ ! -e $BOOKS ]] || rm -r "$BOOKS"
    mkdir "$BOOKS" "$BOOKS/newcerts" && ln -s "$dir"/!(index.txt*|newcerts|serial*|ca.lock) "$BOOKS" || return 1
    if needs_all "$dir"; then
        mend_register "$dir" && cp "$dir"/@(index.txt?(.attr)|serial) "$BOOKS" || return 1
        mapfile rows <"$BOOKS/index.txt"
        count=${#rows[@]}
    else
        : >"$BOOKS/index.txt"
        echo 'unique_subject = no' >"$BOOKS/index.txt.attr"
    fi
    EST_CA_DIR=$BOOKS openssl ca -batch -notext "${@:2}" -out "$BOOKS/certificate" 2>"$BOOKS/log" || return 1
    # It says yes on a full disk as well: the row must be there to its end, and both copies of the certificate.
    mapfile rows <"$BOOKS/index.txt"
    if ((${#rows[@]} == count + 1)) && [[ ${rows[-1]} =~ $ROW && ${BASH_REMATCH[1]} == V && ${BASH_REMATCH[6]} ]]; then
        row=${rows[-1]} serial=${BASH_REMATCH[4]} certificate=$(<"$BOOKS/certificate")
        [[ $certificate != "-----BEGIN CERTIFICATE-----"*"-----END CERTIFICATE-----" ||
            $certificate != "$(<"$BOOKS/newcerts/$serial.pem")" ]] || return 0
    fi
    echo "${BOOKS%/*} is full, or openssl.cnf has no 'database = \$dir/index.txt': openssl ca left no row" >>"$BOOKS/log"
    return 1
}

# file_certificate DIR: keep what `certify` made in newcerts/ of the CA in DIR, on the disk.
file_certificate() {
    local file=$1/newcerts/$serial.pem
    [[ ! -e $file ]] || { echo "$file is there already" >&2 && return 1; }
    printf '%s\n' "$certificate" >"$file" && sync "$file" "$1/newcerts" && return
    echo "nothing was issued: $file could not be written" >&2
    rm -f "$file"
    return 1
}

# enter_row DIR: enter what `certify` made in index.txt of the CA in DIR, on the disk; the lock is held. What fails leaves
# the register as it was, and no certificate.
enter_row() {
    local index=$1/index.txt
    if mend_register "$1" && count_on "$1"; then
        printf %s "$row" >>"$index" && sync "$index" && return
        if [[ $(tail -n 1 "$index" && echo .) == "$row." ]]; then
            truncate -s "-${#row}" "$index" # a row is ASCII
        else
            mend_register "$1" 2>/dev/null
        fi
    fi
    echo "nothing was issued: $index could not be written" >&2
    rm -f "$1/newcerts/$serial.pem"
    return 1
}

# count_on DIR: keep the next serial number, where they are counted; a number that is left out does no harm.
count_on() {
    [[ ! -e $BOOKS/serial ]] || { cp "$BOOKS/serial" "$1/serial.new" && put "$1" "$1/serial.new" serial; }
}

# put DIR FILE [NAME]: let a file of the same file system take the place of the one in DIR, once it is on the disk.
put() { sync "$2" && mv -T "$2" "$1/${3-${2##*/}}" && sync "$1"; }

# holds_all OLD NEW: whether each row of OLD is in NEW, as it was or revoked since, and each row of NEW is whole.
holds_all() {
    [[ ! -s $2 || $(tail -c 1 "$2") == '' ]] && awk -F'\t' '
        NF != 6 { exit failed = 1 }
        FILENAME == ARGV[1] { row[$4] = $0; next }
        $4 in row && ($0 == row[$4] || $1 == "R" && row[$4] ~ /^[VE]/) { delete row[$4] }
        END { for (serial in row) failed = 1; exit failed }
    ' "$1" "$2"
}

# mend_register DIR: put right what a killed script or a power cut has left; the lock is held.
mend_register() {
    local index=$1/index.txt last file fields=()
    for file in index.txt.attr crlnumber serial; do # `openssl ca`, typed by hand, was killed between its renames
        [[ -e $1/$file || ! -s $1/$file.new ]] || put "$1" "$1/$file.new" "$file" || return 1
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
    { last=$(tail -n 1 "$index" && echo .) || return 1; } 2>/dev/null # it may be a block of zeros
    last=${last%.}
    [[ ! $last =~ $ROW ]] || fields=("${BASH_REMATCH[@]}")
    [[ ! ${fields[6]-} ]] || return 0
    if [[ $last == *$'\n' ]]; then
        echo "$index: the last row has not six fields; correct it by hand" >&2
        return 1
    fi
    # A row of enter_row has its certificate in newcerts. What an editor has left without its line feed is whole.
    file=$1/newcerts/${fields[4]-}.pem
    if [[ ${fields[4]-} && (! -s $file ||
        "subject=${fields[5]}" == "$(openssl x509 -in "$file" -noout -subject -nameopt compat)") ]]; then
        echo >>"$index"
        return
    fi
    truncate -s "-$(tail -n 1 "$index" | wc -c)" "$index" && sync "$index" || return 1
    echo "$index: cut off a row that a kill, a power cut or a full disk has left without its end: $last" >&2
}

# is_revoked FILE: whether the certificate in there is revoked by the register of the CA in EST_CA_DIR.
is_revoked() {
    local number
    number=$(openssl x509 -in "$1" -noout -serial) || return 0
    # The old index, too: while somebody types `openssl ca`, it is the only one for a moment.
    grep -qs $'^R\t.*\t'"${number#serial=}"$'\t' "$EST_CA_DIR"/index.txt{,.old}
}

# shellcheck shell=bash
# Requests that wait for a human: what manual-approval needs; it reads this in with `source`.
#
# A request is a directory, EST_CA_DIR/pending/STATE/ID, and one rename takes it from state to state:
#   waiting   csr.pem, and `request` with the facts, NAME=value a line
#   approved  the same; `started` is there from when issuing began
#   issued    certificate.pem, given to everybody who repeats the request
#   refused   `reason`, the words for the client
# Who moves one holds the lock on pending/lock.  Who issues one holds the lock on its directory, through descriptor 8,
# which its children inherit: when the lock can be had, whoever was issuing has ended, killed or not.

# find_request: go to pending/, lock it, and set `state` (new, if there is no such request) and `request`.
find_request() {
    mkdir -p "$EST_CA_DIR"/pending/{waiting,approved,issued,refused}
    cd "$EST_CA_DIR/pending" || exit
    exec 7>>lock
    flock -E 69 -w $((EST_TIMEOUT / 4)) 7
    for state in waiting approved issued refused new; do
        request=$state/$EST_PENDING_ID
        [[ ! -d $request ]] || return 0
    done
}

# remember_request DAYS MOST: let it wait, and forget those that are older; whole, or not at all.
remember_request() {
    local name others
    find {waiting,approved,issued,refused} -mindepth 1 -maxdepth 1 -mtime "+$1" -exec rm -rf {} +
    others=$(find waiting -mindepth 1 -maxdepth 1 -printf x)
    ((${#others} < $2)) || {
        echo "too many requests wait for approval"
        exit 69
    }
    rm -rf .new
    mkdir .new
    cp "$EST_CSR_FILE" .new/csr.pem
    for name in EST_{OPERATION,LABEL,AUTH_METHODS} REMOTE_{USER,ADDR} SSL_CLIENT_S_DN "${!EST_C@}"; do
        [[ ! -v $name || $name == EST_@(CA_DIR|CONTRACT|*_FILE) ]] || printf '%s=%s\n' "$name" "${!name}"
    done >.new/request
    sync .new/*
    mv .new "waiting/$EST_PENDING_ID"
}

# hand_out_again: the certificate, to whom it was issued. A key of the server's making was sent once and is kept
# nowhere, so that request waits for a human again.
hand_out_again() {
    [[ $EST_OPERATION == serverkeygen ]] || exec cat "$request/certificate.pem"
    ask_again
}

ask_again() {
    rm -f "$request/started" "$request/certificate.pem"
    mv "$request" waiting
    exit 75
}

# issue_request DIR: let the handler in there issue what was approved, once, and answer with what it prints.
issue_request() {
    exec 8<"$request"
    flock -n 8 || exit 75 # it is being issued at this moment
    answer=$EST_TMPDIR/answer
    if [[ -e $request/started ]]; then # by somebody who was killed
        [[ $EST_OPERATION != serverkeygen ]] || ask_again
        find_issued
    fi
    [[ -s $answer ]] || run_issuer "$1"
    certificate=$(SSL_CERT_FILE=/dev/null openssl x509 -in "$answer") # and never the key beside it
    printf '%s\n' "$certificate" >"$request/certificate.pem"
    sync "$request/certificate.pem" "$request"
    flock 7
    mv "$request" issued
    sync approved issued
    cat "$answer"
}

# find_issued: the certificate for this key that has come into the CA's books since, if there is one.
find_issued() {
    local file key
    exec 9>>../ca.lock
    flock -E 69 -w $((EST_TIMEOUT / 4)) 9
    key=$(openssl req -in "$EST_CSR_FILE" -noout -pubkey)
    while read -r file; do
        [[ $(SSL_CERT_FILE=/dev/null openssl x509 -in "$file" -noout -pubkey) == "$key" ]] || continue
        file=${file##*/}
        ! grep -qs $'\t'"${file%.pem}"$'\t' ../index.txt ../index-archive/*.txt || cp "../newcerts/$file" "$answer"
    done < <(find ../newcerts -name '*.pem' -newer "$request/started")
    exec 9>&-
}

# run_issuer DIR: what it refuses or can't do now stays approved.
run_issuer() {
    local end=0
    touch "$request/started"
    sync "$request/started" "$request" # or a power cut would have it issued twice
    flock -u 7
    (cd "$1" && exec "./$EST_OPERATION" 7>&-) >"$answer" || end=$?
    ((end)) || return 0
    [[ $end != @(65|69|77) ]] || rm "$request/started" # these say that nothing was issued
    cat "$answer"
    exit "$end"
}

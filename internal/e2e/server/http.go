package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"strconv"
)

func handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", page)
	mux.HandleFunc("GET /hostname", hostname)
	mux.HandleFunc("GET /client", client)
	mux.HandleFunc("GET /download", download)
	mux.HandleFunc("POST /upload", upload)
	mux.HandleFunc("GET /fetch", fetch)
	return mux
}

// page names the port that the request came to, so that a client can tell one of a range from the next.
func page(w http.ResponseWriter, r *http.Request) {
	local := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr)
	_, _ = fmt.Fprintf(w, "container port %d\n", local.Port)
}

// hostname names the container.
func hostname(w http.ResponseWriter, _ *http.Request) {
	name, err := os.Hostname()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	_, _ = fmt.Fprint(w, name)
}

// client names the address that the request comes from.
func client(w http.ResponseWriter, r *http.Request) {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	_, _ = fmt.Fprint(w, host)
}

// download answers with as many random bytes as asked and their SHA-256 in a trailer.
func download(w http.ResponseWriter, r *http.Request) {
	size, err := strconv.ParseInt(r.FormValue("bytes"), 10, 64)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Trailer", "Sha256")
	sum := sha256.New()
	random := io.LimitReader(rand.NewChaCha8([32]byte{}), size)
	if _, err := io.Copy(io.MultiWriter(w, sum), random); err != nil {
		log.Print(err)
		return
	}
	w.Header().Set("Sha256", hex.EncodeToString(sum.Sum(nil)))
}

// upload answers with the SHA-256 of what it received.
func upload(w http.ResponseWriter, r *http.Request) {
	sum := sha256.New()
	if _, err := io.Copy(sum, r.Body); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	_, _ = fmt.Fprint(w, hex.EncodeToString(sum.Sum(nil)))
}

// fetch gets a URL from inside the container and passes the answer on.
func fetch(w http.ResponseWriter, r *http.Request) {
	resp, err := http.Get(r.FormValue("url"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer func() { _ = resp.Body.Close() }() // read to its end or given up
	w.WriteHeader(resp.StatusCode)
	if _, err := io.Copy(w, resp.Body); err != nil {
		log.Print(err)
	}
}

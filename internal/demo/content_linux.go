package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
)

// content is 1 MiB of random bytes, which the backend sends 1,024 times.
type content []byte

func newContent() content {
	c := make(content, 1<<20)
	random := rand.NewChaCha8([32]byte{})
	_, _ = random.Read(c) // never fails
	return c
}

// ServeHTTP sends 1 GiB.
func (c content) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Length", strconv.Itoa(gibibyte))
	for range gibibyte / len(c) {
		if _, err := w.Write(c); err != nil {
			return // the client notices
		}
	}
}

// fetch reads 1 GiB and compares every byte.
func (c content) fetch(url string) error {
	response, err := http.Get(url)
	if err != nil {
		return err
	}
	got := make([]byte, len(c))
	for i := range gibibyte / len(c) {
		if _, err = io.ReadFull(response.Body, got); err != nil {
			break
		}
		if !bytes.Equal(got, c) {
			err = fmt.Errorf("MiB %d arrived changed", i)
			break
		}
	}
	return errors.Join(err, response.Body.Close())
}

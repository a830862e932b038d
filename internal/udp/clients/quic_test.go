package clients

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net/netip"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
)

// protocol is what the two ends of TestQUIC call what they talk.
const protocol = "portsplice-test"

// TestQUIC transfers a file to a QUIC server and back, through the proxy. Both ends send blocks (UDP_SEGMENT), and the
// counters prove that they pass as such.
func TestQUIC(t *testing.T) {
	const size = 16 << 20
	content := make([]byte, size)
	_, err := rand.Read(content)
	must(t, err)
	for _, on := range []netip.Addr{ours(), netip.IPv6Loopback()} {
		t.Run(on.String(), func(t *testing.T) {
			backend := serveQUIC(t)
			frontend := freePort(t, on)
			p := serve(t, frontend, backend)
			got := transfer(t, frontend, content)
			if want := sha256.Sum256(content); !bytes.Equal(got, want[:]) {
				t.Errorf("the server received something else")
			}
			c := p.counters(t)
			if c["flows-total"] != 1 || c["bytes-in"] < size || c["bytes-out"] < size || c["too-large"] != 0 {
				t.Errorf("%v; want one flow with %d bytes each way", c, size)
			}
			if datagrams := c["datagrams-in"] + c["datagrams-out"]; c["segments"] < datagrams/4 {
				t.Errorf("%d of %d datagrams passed in blocks, want most", c["segments"], datagrams)
			}
		})
	}
}

// serveQUIC runs a server that takes one stream, and sends its digest and then its content back.
func serveQUIC(t *testing.T) netip.AddrPort {
	t.Helper()
	listener, err := quic.ListenAddr(netip.AddrPortFrom(ours(), 0).String(), serverTLS(t), nil)
	must(t, err)
	served := make(chan error, 1)
	go func() { served <- serveStream(listener) }()
	t.Cleanup(func() {
		must(t, listener.Close())
		if err := <-served; err != nil {
			t.Errorf("server: %v", err)
		}
	})
	return netip.MustParseAddrPort(listener.Addr().String())
}

func serveStream(listener *quic.Listener) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, err := listener.Accept(ctx)
	if err != nil {
		return err
	}
	stream, err := conn.AcceptStream(ctx)
	if err != nil {
		return err
	}
	content, err := io.ReadAll(stream)
	if err != nil {
		return err
	}
	digest := sha256.Sum256(content)
	_, err = stream.Write(append(digest[:], content...))
	err = errors.Join(err, stream.Close())
	<-conn.Context().Done() // the client closes
	return err
}

// transfer sends content to the server and returns the digest that it answers with, once the content has come back.
func transfer(t *testing.T, server netip.AddrPort, content []byte) (digest []byte) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	anyone := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{protocol}} // the server is this process
	conn, err := quic.DialAddr(ctx, server.String(), anyone, nil)
	must(t, err)
	defer func() { must(t, conn.CloseWithError(0, "")) }()
	stream, err := conn.OpenStreamSync(ctx)
	must(t, err)
	must(t, stream.SetDeadline(time.Now().Add(patience)))
	_, err = stream.Write(content)
	must(t, err)
	must(t, stream.Close())
	answer, err := io.ReadAll(stream)
	must(t, err)
	if len(answer) != sha256.Size+len(content) || !bytes.Equal(answer[sha256.Size:], content) {
		t.Fatalf("%d bytes came back, changed or cut short", len(answer))
	}
	return answer[:sha256.Size]
}

// serverTLS makes a certificate for the time of the test.
func serverTLS(t *testing.T) *tls.Config {
	t.Helper()
	public, private, err := ed25519.GenerateKey(nil)
	must(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, public, private)
	must(t, err)
	return &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{certificate}, PrivateKey: private}},
		NextProtos:   []string{protocol},
	}
}

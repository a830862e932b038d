// Package accesslog writes a line for each connection at its end: the client, the backend, the bytes each way, how long it
// lasted, and who ended it and why.
package accesslog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/portsplice/portsplice/internal/connection"
)

const (
	// waiting is how many lines of a port may wait to be written, at 200 bytes each, and as many may be about to be: as many
	// as a journal's socket holds (net.unix.max_dgram_qlen, which systemd sets to 512). What is more is left out.
	waiting = 512

	// A line that the journal has no room for is tried again after minPause, and later and later, for patience in all.
	minPause = time.Millisecond
	patience = time.Second
)

// Log is the access log of a port. It may be used by any goroutine, and keeps none waiting: the lines are written by one
// of its own, which there is while there are any.
type Log struct {
	frontend string
	to       slog.Handler
	dropped  atomic.Uint64

	mu      sync.Mutex
	ended   []line
	leftOut uint64 // lines, since it was last told
	writing bool
	written sync.Cond // it is not writing any more
	closed  bool
}

type line struct {
	connection.Connection
	at time.Time
}

// New makes a log of the port at frontend.
func New(frontend string, to slog.Handler) *Log {
	l := &Log{frontend: frontend, to: to}
	l.written.L = &l.mu
	return l
}

// Observe is told of connections. Of those that have ended it writes a line, or counts it as left out.
func (l *Log) Observe(c connection.Connection) {
	if c.Phase != connection.Ended {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.ended) == waiting || l.closed {
		l.drop()
		return
	}
	l.ended = append(l.ended, line{c, time.Now()})
	if !l.writing {
		l.writing = true
		go l.write()
	}
}

// drop counts a line that is left out; l.mu is held.
func (l *Log) drop() {
	l.dropped.Add(1)
	l.leftOut++
}

// Dropped is how many lines were left out: because others waited, or because nothing took them.
func (l *Log) Dropped() uint64 { return l.dropped.Load() }

// Close waits until all lines are written, or left out if that takes time.
func (l *Log) Close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.closed = true; l.writing; {
		l.written.Wait()
	}
}

// write writes until no line waits.
func (l *Log) write() {
	l.mu.Lock()
	defer l.mu.Unlock()
	var spare []line
	for len(l.ended) > 0 {
		batch := l.ended
		l.ended = spare[:0]
		for _, line := range batch {
			l.unlocked(func() error { return l.handle(line.record(l.frontend)) }, l.drop)
		}
		spare = batch
		if n := l.leftOut; n > 0 {
			l.leftOut = 0
			l.unlocked(func() error { return l.handle(leftOut(n)) }, func() { l.leftOut += n })
		}
	}
	l.ended, l.writing = nil, false
	l.written.Broadcast()
}

// unlocked calls f without l.mu, and failed with it if that has failed.
func (l *Log) unlocked(f func() error, failed func()) {
	l.mu.Unlock()
	err := f()
	l.mu.Lock()
	if err != nil {
		failed()
	}
}

// handle has a line written. It waits for a journal that is busy.
func (l *Log) handle(r slog.Record) error {
	begun := time.Now()
	for pause := minPause; ; pause *= 2 {
		err := l.to.Handle(context.Background(), r)
		if !errors.Is(err, syscall.EAGAIN) || time.Since(begun) > patience || l.isClosed() {
			return err
		}
		time.Sleep(pause)
	}
}

func (l *Log) isClosed() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.closed
}

func (c line) record(frontend string) slog.Record {
	text := fmt.Sprintf("access: client %v, frontend %s, backend %v, %d bytes in, %d bytes out, %v, ended by %s: %s",
		c.Client, frontend, c.Backend, c.FromClient, c.FromBackend, c.Lasted.Round(time.Microsecond), c.By, c.Reason)
	if c.Err != nil {
		text += ": " + c.Err.Error()
	}
	r := slog.NewRecord(c.at, slog.LevelInfo, text, 0)
	r.AddAttrs(slog.String("operation", "access"), slog.Any("client", c.Client), slog.Any("backend", c.Backend),
		slog.Uint64("received_bytes", c.FromClient), slog.Uint64("sent_bytes", c.FromBackend),
		slog.Float64("connect_seconds", c.Dial.Seconds()), slog.Float64("duration_seconds", c.Lasted.Seconds()),
		slog.String("ended_by", string(c.By)), slog.String("reason", string(c.Reason)))
	if c.Err != nil {
		r.AddAttrs(slog.Any("error", c.Err))
	}
	return r
}

func leftOut(n uint64) slog.Record {
	r := slog.NewRecord(time.Now(), slog.LevelWarn, fmt.Sprintf("access: connections left out since the last line: %d", n), 0)
	r.AddAttrs(slog.String("operation", "access"), slog.Uint64("left_out", n))
	return r
}

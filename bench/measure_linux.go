package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"time"
)

// patience is what a measurement may take beside the time that it measures.
const patience = time.Minute

// Rounds measures all proxies at one work, in rounds.
func (p *Programs) Rounds(ctx context.Context, w Work, s Set) (Result, error) {
	const shortest = 100 * time.Millisecond // of the first round: a peer under load may be silent for half of it
	samples, err := Rounds(ctx, s.Rounds, w, p.Proxies,
		func(ctx context.Context, w Work, proxy Proxy, round int) (Values, error) {
			if round == 0 {
				return p.Measure(ctx, w, proxy, max(s.Time/4, shortest))
			}
			return p.Measure(ctx, w, proxy, s.Time)
		})
	return Result{Work: w, Proxies: p.Proxies, Samples: samples}, err
}

// Measure measures one proxy at one work. The duration is for work that is traffic.
func (p *Programs) Measure(ctx context.Context, w Work, proxy Proxy, d time.Duration) (Values, error) {
	return p.MeasureWith(ctx, Tool{}, w, proxy, d)
}

// MeasureWith has a tool watch the proxy, if the work is traffic.
func (p *Programs) MeasureWith(ctx context.Context, tool Tool, w Work, proxy Proxy, d time.Duration) (
	v Values, failure error) {
	ctx, cancel := context.WithTimeout(ctx, d+patience)
	defer cancel()
	l, err := newLab(p.dir, tool.Environment)
	if err != nil {
		return nil, err
	}
	defer l.close()
	if w.Kind == ports {
		return p.measurePorts(ctx, l, w, proxy)
	}
	server, err := p.startServer(ctx, l, w)
	if err != nil {
		return nil, err
	}
	r := route{to: messagesBackend, server: server.Process.Pid}
	if w.Kind == streams {
		r.to = streamsBackend
	}
	if proxy.Name != Direct {
		running, _, err := p.startProxy(ctx, l, proxy, w.Protocol, firstFrontend, r.to)
		if err != nil {
			return nil, err
		}
		r.to, r.proxy = netip.AddrPortFrom(hostAddr, firstFrontend), running.Process.Pid
		finish, err := tool.attach(ctx, running)
		if err != nil {
			return nil, err
		}
		defer func() { failure = errors.Join(failure, finish()) }()
	}
	switch w.Kind {
	case idle:
		return p.measureIdle(ctx, l, w, r)
	case others:
		return l.measureRealClient(ctx, realClients[w.client[0]], r)
	default:
		return p.measureTraffic(ctx, l, w, r, d)
	}
}

// route is the way from a client to a server.
type route struct {
	to     netip.AddrPort // the proxy, or the server itself
	proxy  int            // process, or 0
	server int            // process
}

func (p *Programs) startServer(ctx context.Context, l *lab, w Work) (*process, error) {
	if w.Kind == others {
		return l.startRealServer(ctx, realClients[w.client[0]])
	}
	serve := []string{"serve", "-messages", messagesBackend.String(), "-streams", streamsBackend.String()}
	server, _, err := l.start(ctx, l.container, p.load, serve)
	return server, err
}

// measureTraffic runs a client. It measures by itself, since only it knows when what counts begins and ends.
func (p *Programs) measureTraffic(ctx context.Context, l *lab, w Work, r route, d time.Duration) (Values, error) {
	if w.Time != 0 {
		d = w.Time
	}
	out, err := output(ctx, l.client, newProcess(ctx, p.load, slices.Concat(w.client, []string{
		"-time", d.String(), "-to", r.to.String(), "-counts", streamsBackend.String(),
		"-proxy", strconv.Itoa(r.proxy), "-server", strconv.Itoa(r.server)})))
	if err != nil {
		return nil, err
	}
	var v Values
	if err := json.Unmarshal(out, &v); err != nil {
		return nil, fmt.Errorf("what the client measured: %w", err)
	}
	return v, nil
}

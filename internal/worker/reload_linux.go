package worker

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/portsplice/portsplice/internal/accesslog"
	"github.com/portsplice/portsplice/internal/config"
)

// hangUps receives SIGHUP. The program may have set a handler for it without Go's runtime, which then takes the handler for
// its own: only what the runtime has ignored it sets up anew.
func hangUps() <-chan os.Signal {
	signal.Ignore(unix.SIGHUP)
	c := make(chan os.Signal, 1)
	signal.Notify(c, unix.SIGHUP)
	return c
}

func (w *Worker) reloadOnHangUp(signals <-chan os.Signal) {
	for range signals {
		for _, wrong := range w.Reload().Errors {
			slog.New(w.log).Error("reload: nothing has changed: " + wrong)
		}
	}
}

// Reload reads the options of all ports anew and applies what can change while connections live. If anything is wrong with
// them, or with a file of them, nothing changes. What has changed is in the log of each port, too.
func (w *Worker) Reload() Reload {
	w.reloading.Lock()
	defer w.reloading.Unlock()
	ports := w.all()
	answer := Reload{Version: control, Worker: os.Getpid(), Served: len(ports), Ports: []Reloaded{}}
	next, errs := read(ports)
	for _, err := range errs {
		answer.Errors = append(answer.Errors, err.Error())
	}
	for i, c := range next {
		if r := ports[i].reload(c); len(r.Changes) > 0 {
			answer.Ports = append(answer.Ports, r)
			go slog.New(ports[i].log).Info(r.line())
		}
	}
	return answer
}

// read reads the options of ports anew, or says what is wrong with any.
func read(ports []*port) (all []config.Config, errs []error) {
	files := make(map[string]bool)
	for _, p := range ports {
		path, err := config.File(p.environment)
		if err == nil && !files[path] {
			files[path] = true
			errs = append(errs, config.Check(path)...)
		}
	}
	if errs != nil { // and ports would say them again
		return nil, errs
	}
	for _, p := range ports {
		c, err := config.Parse(p.arguments, p.environment, io.Discard)
		if err != nil {
			errs = append(errs, fmt.Errorf("%v/%s: %w", p.config.Frontend, p.config.Protocol, err))
		}
		all = append(all, c)
	}
	if errs != nil {
		return nil, errs
	}
	return all, nil
}

// inForce are the options that the port has. w.reloading is held.
func (p *port) inForce() config.Config {
	if p.reloaded != nil {
		return *p.reloaded
	}
	return p.config
}

// reload applies what can change of c. w.reloading is held.
func (p *port) reload(next config.Config) Reloaded {
	now := p.inForce()
	adopted, changes := now.Adopt(next)
	r := Reloaded{Protocol: string(p.config.Protocol), Frontend: p.config.Frontend.String(), Changes: changes}
	if !slices.ContainsFunc(changes, func(c config.Change) bool { return c.Live }) {
		return r
	}
	err := p.set(now, adopted)
	if err == nil {
		p.reloaded = &adopted
		return r
	}
	for i, c := range changes {
		if c.Live {
			changes[i].Live, changes[i].Reason = false, err.Error()
		}
	}
	return r
}

// set has the port go on with other options, or as it was.
func (p *port) set(now, next config.Config) error {
	if err := p.relay.Set(next); err != nil {
		return err
	}
	if err := p.setBypass(now, next); err != nil {
		return errors.Join(err, p.relay.Set(now))
	}
	p.setLogs(next)
	return nil
}

// setLogs sets how the port writes its lines, and whether it has an access log.
func (p *port) setLogs(c config.Config) {
	p.log.JSON.Store(c.LogFormat == config.JSON)
	on := c.AccessLog == config.On
	if on && p.access.Load() == nil {
		p.access.Store(accesslog.New(p.log.Port, p.log))
	}
	p.accessed.Store(on)
}

// line tells people.
func (r *Reloaded) line() string {
	var parts []string
	for _, c := range r.Changes {
		parts = append(parts, Tell(c))
	}
	return "reload: " + strings.Join(parts, "; ")
}

// Options tells what every port has been told, as it would be read now.
func (w *Worker) Options() Options {
	w.reloading.Lock()
	defer w.reloading.Unlock()
	answer := Options{Version: control, Worker: os.Getpid(), Ports: []PortOptions{}}
	for _, p := range w.all() {
		answer.Ports = append(answer.Ports, p.options())
	}
	return answer
}

func (p *port) options() PortOptions {
	o := PortOptions{Protocol: string(p.config.Protocol), Frontend: p.config.Frontend.String(), Options: []Option{}}
	next, settings, err := config.Explain(p.arguments, p.environment)
	if err != nil {
		o.Error = err.Error()
		return o
	}
	inForce := make(map[string]*string)
	_, changes := p.inForce().Adopt(next)
	for i := range changes {
		inForce[changes[i].Option] = &changes[i].From
	}
	for _, s := range settings {
		o.Options = append(o.Options, Option{s, inForce[s.Option]})
	}
	return o
}

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/portsplice/portsplice/internal/config"
	"github.com/portsplice/portsplice/internal/listener"
	"github.com/portsplice/portsplice/internal/worker"
)

// errNobody is said where there is no worker to ask.
var errNobody = errors.New("no worker of yours serves a port in this network namespace")

// check is the command that says what is wrong with the file of options.
func check() *cobra.Command {
	return &cobra.Command{
		Use:   "check [FILE]",
		Short: "Say what is wrong with the file of options",
		Long: `Say what is wrong with the file of options, a line each, as a port that starts would
be told. Nothing is started or changed.

FILE is ` + config.DefaultFile + `, or what PORTSPLICE_CONFIG names.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			path, err := config.File(os.Environ())
			if len(args) > 0 {
				path, err = args[0], nil
			}
			if err != nil {
				return err
			}
			errs := config.Check(path)
			for _, wrong := range errs {
				c.PrintErrln(wrong)
			}
			if len(errs) > 0 {
				c.SilenceErrors = true // all is said
				return errors.Join(errs...)
			}
			if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
				if len(args) > 0 {
					return err
				}
				path += " is not there, which is fine"
			} else {
				path += ": nothing is wrong"
			}
			_, err = fmt.Fprintln(c.OutOrStdout(), path)
			return err
		},
	}
}

// showOptions is the command that tells what a port has been told.
func showOptions() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "config PORTS",
		Short: "Show the options of ports, and where each comes from",
		Long: `Show every option that applies to a published port, its value, and where that comes
from: a flag, a variable, a line of the file, or the default. PORTS is as in the
file: 443/tcp (on any address), 127.0.0.1:53/udp or [::]:5000-5099/tcp.

All is read anew. Where a port that runs goes on with another value, because the
file has changed since, that one is told, too.

Of a port that no worker serves it shows what the file, and the environment of
this command, would bring.`,
		Example: "  portsplicectl config 443/tcp",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			ports, err := config.ParsePorts(args[0])
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			found, err := served(ports)
			if len(found) == 0 {
				var failed error
				found, failed = unserved(ports)
				err = errors.Join(err, failed)
				c.PrintErrf("no worker of yours serves %s: this is by the file and this command's environment\n", args[0])
			}
			write := optionTables
			if asJSON {
				write = func(w io.Writer, all []worker.PortOptions) error { return json.NewEncoder(w).Encode(all) }
			}
			for _, p := range found {
				if p.Error != "" {
					err = errors.Join(err, fmt.Errorf("%s/%s: %s", p.Frontend, p.Protocol, p.Error))
				}
			}
			return errors.Join(write(c.OutOrStdout(), found), err)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print a list of ports with their options")
	return c
}

// served asks the workers. The error is of those that do not answer.
func served(ports config.Ports) (found []worker.PortOptions, err error) {
	answers, err := worker.Ask[worker.Options]("options")
	for _, answer := range answers {
		for _, p := range answer.Ports {
			frontend, failed := netip.ParseAddrPort(p.Frontend)
			if failed != nil {
				err = errors.Join(err, fmt.Errorf("worker %d: %w", answer.Worker, failed))
			}
			if ports.Contain(listener.Protocol(p.Protocol), frontend) {
				found = append(found, p)
			}
		}
	}
	return found, err
}

// unserved tells what the first of the ports would have, on all IPv4 addresses if they are on any.
func unserved(ports config.Ports) ([]worker.PortOptions, error) {
	addr := ports.Addr
	if !addr.IsValid() {
		addr = netip.IPv4Unspecified()
	}
	frontend := netip.AddrPortFrom(addr, ports.First)
	settings, err := config.ExplainPort(ports.Protocol, frontend, os.Environ())
	if err != nil {
		return []worker.PortOptions{}, err
	}
	p := worker.PortOptions{Protocol: string(ports.Protocol), Frontend: frontend.String()}
	for _, s := range settings {
		p.Options = append(p.Options, worker.Option{Setting: s})
	}
	return []worker.PortOptions{p}, nil
}

// optionTables prints a table for each port.
func optionTables(w io.Writer, all []worker.PortOptions) error {
	between := ""
	for _, p := range all {
		if p.Error != "" {
			continue
		}
		_, _ = fmt.Fprintf(w, "%s%s/%s\n", between, p.Frontend, p.Protocol) // Flush tells of errors
		between = "\n"
		t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		_, _ = fmt.Fprintln(t, "OPTION\tVALUE\tFROM")
		for _, o := range p.Options {
			_, _ = fmt.Fprintf(t, "%s\t%s\t%s", o.Option, worker.Shown(o.Value), o.Source)
			if o.InForce != nil {
				_, _ = fmt.Fprintf(t, " (in force: %s)", worker.Shown(*o.InForce))
			}
			_, _ = fmt.Fprintln(t)
		}
		if err := t.Flush(); err != nil {
			return err
		}
	}
	return nil
}

// reload is the command that has workers read the options anew.
func reload() *cobra.Command {
	return &cobra.Command{
		Use:   "reload",
		Short: "Have ports that run take changed options over",
		Long: `Have the workers read the options of all ports anew, and apply those that can change
while connections live. What cannot is told, of each port; it is for when the port
is published anew. If anything is wrong with the options of any port of a worker,
nothing of that worker changes. SIGHUP to a worker does the same.

A port that is served without a worker keeps its options.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			answers, err := worker.Ask[worker.Reload]("reload")
			if err == nil && len(answers) == 0 {
				return errNobody
			}
			for _, answer := range answers {
				for _, wrong := range answer.Errors {
					err = errors.Join(err, errors.New(wrong))
				}
				if answer.Errors != nil {
					err = errors.Join(err, fmt.Errorf("worker %d: nothing has changed for its %d ports", answer.Worker, answer.Served))
					continue
				}
				for _, p := range answer.Ports {
					for _, change := range p.Changes {
						_, _ = fmt.Fprintf(c.OutOrStdout(), "%s/%s: %s\n", p.Frontend, p.Protocol, worker.Tell(change)) // what follows tells of errors
					}
				}
				_, failed := fmt.Fprintf(c.OutOrStdout(), "worker %d: read the options of %d ports, other ones for %d\n", answer.Worker, answer.Served, len(answer.Ports))
				err = errors.Join(err, failed)
			}
			return err
		},
	}
}

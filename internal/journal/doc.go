// Package journal writes lines for the people of a host: to standard error, or where that is /dev/null, as dockerd has it
// for the proxies that it starts, to the systemd journal or else to syslog.
//
// In the journal a line has the fields SYSLOG_IDENTIFIER=portsplice, PORTSPLICE_PORT, and one for each attribute of
// log/slog, such as PORTSPLICE_CLIENT, so that
//
//	journalctl -t portsplice PORTSPLICE_PORT=0.0.0.0:80/tcp
//
// shows those of one port. A line that neither takes at once is lost: nothing waits for them. On standard error a line is
// its message, or with Log.JSON all that it has.
//
// Stream is for the trace of a crash, which Go's runtime writes.
//
// The protocol of the journal is short enough to be here (https://systemd.io/JOURNAL_NATIVE_PROTOCOL/). A package that
// speaks it through package net would keep two descriptors of Go's poller in each process.
package journal

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
)

// postgres is where Debian keeps a program of PostgreSQL; what is on PATH there is a wrapper for its own databases.
func postgres(program string) []string {
	return []string{"/usr/lib/postgresql/*/bin/" + program, program}
}

// preparePostgres makes the database at the first time. It is not shut down between measurements but killed, and mends
// itself when it starts. Nobody is who it runs as: it refuses to be root.
func preparePostgres(ctx context.Context, l *lab, server *process) error {
	nobody := &syscall.Credential{Uid: 65534, Gid: 65534}
	server.SysProcAttr.Credential = nobody
	data := filepath.Join(l.dir, "postgres")
	err := os.Mkdir(data, 0o700)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err == nil {
		err = os.Chown(data, int(nobody.Uid), int(nobody.Gid))
	}
	if err != nil {
		return err
	}
	initdb := exec.CommandContext(ctx, find(postgres("initdb")...), "-D", data, "-U", "postgres", "-A", "trust", "-N")
	initdb.SysProcAttr = &syscall.SysProcAttr{Credential: nobody}
	initdb.Dir = data
	if out, err := initdb.CombinedOutput(); err != nil {
		return errors.Join(fmt.Errorf("%s: %w\n%s", initdb, err, out), os.RemoveAll(data)) // the next round makes it anew
	}
	return nil
}

// postgresIsReady waits until the database takes queries, which is some time after its port is open.
func postgresIsReady(ctx context.Context, l *lab) error {
	isReady := find(postgres("pg_isready")...)
	to := backend
	return poll(ctx, func() (bool, error) {
		asked := newProcess(ctx, isReady, "-q", "-h", to.Addr().String(), "-p", fmt.Sprint(to.Port()))
		_, err := asked.output(ctx, l.container.Do)
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			return false, nil
		}
		return err == nil, err
	})
}

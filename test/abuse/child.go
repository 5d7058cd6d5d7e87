package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/reto10/chat"
)

const (
	// attackVariable makes this program run the attack that it describes, see assignment.
	attackVariable = "ABUSE_ATTACK"
	// attackNice is the niceness of an attacking process. Real attackers have their own machines,
	// so the attack must not take the server's processors.
	attackNice = "10"
	// endingWait bounds the end of such a process after it was asked to end.
	endingWait = 30 * time.Second
)

// assignment is the input of a process that runs an attack.
type assignment struct {
	Attack string
	Addr   string // of the server, host:port on loopback
	PID    int    // of the server
	First  string // id of the first message of bigChannel
	Small  bool
}

// result is the output of such a process at its end. At the beginning it prints {}.
type result struct {
	Counts map[string]int64
	Notes  []string
}

// attackApart runs an attack in its own process until ctx ends or the attack ends, and adds
// its tally. It calls begun when the attack begins.
func (b *arena) attackApart(ctx context.Context, a attack, begun func()) error {
	defer begun() // also after an error: the caller waits for it
	self, err := os.Executable()
	if err != nil {
		return err
	}
	task, err := json.Marshal(assignment{Attack: a.name, Addr: b.addr, PID: b.pid, First: b.first, Small: b.small})
	if err != nil {
		return err
	}
	cmd := exec.Command("nice", "-n", attackNice, self)
	if b.small { // to see that it runs, also where others keep the processors busy
		cmd = exec.Command(self)
	}
	cmd.Env = append(os.Environ(), attackVariable+"="+string(task))
	cmd.Stderr = os.Stderr
	// The process ends when its input does, so it also ends when this process dies.
	input, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { input.Close() })()
	output, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	late := context.AfterFunc(ctx, func() { time.AfterFunc(endingWait, func() { _ = cmd.Process.Kill() }) })
	defer late()
	results := json.NewDecoder(output)
	var first struct{}
	err = results.Decode(&first)
	begun()
	var r result
	err = errors.Join(err, results.Decode(&r))
	if err := errors.Join(err, cmd.Wait()); err != nil {
		return fmt.Errorf("the attacking process: %w", err)
	}
	b.tally.add(r)
	return nil
}

// runAttack is the main function of such a process. It returns the exit code.
func runAttack(task string, input io.Reader, output io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, end := context.WithCancel(ctx)
	defer end()
	go func() {
		_, _ = io.Copy(io.Discard, input) // until it is closed, one way or another
		end()
	}()
	fmt.Fprintln(output, "{}")
	r, err := carryOut(ctx, task)
	if err == nil {
		err = json.NewEncoder(output).Encode(r)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "abuse: attacking: %v\n", err)
		return 1
	}
	return 0
}

func carryOut(ctx context.Context, task string) (result, error) {
	var as assignment
	if err := json.NewDecoder(strings.NewReader(task)).Decode(&as); err != nil {
		return result{}, err
	}
	signer, err := chat.NewHS256([]byte(secret))
	if err != nil {
		return result{}, err
	}
	for _, a := range attacks {
		if a.name != as.Attack {
			continue
		}
		b := &arena{
			bench:  &bench{settings: settings{small: as.Small}, signer: signer},
			server: &server{addr: as.Addr, pid: as.PID},
			first:  as.First,
		}
		a.run(ctx, b)
		return result{b.tally.counts, b.tally.notes}, nil
	}
	return result{}, fmt.Errorf("no attack %q", as.Attack)
}

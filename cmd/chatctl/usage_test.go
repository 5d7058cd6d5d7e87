package main

import (
	"net"
	"net/http"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/reto10/chat/test/chatdtest"
	"github.com/reto10/chat/test/wstest"
)

func TestWhatMakesNoSenseIsOneLineAndExitCode2(t *testing.T) {
	t.Parallel()
	who := []string{"CHATCTL_TOKEN=abc"}
	tests := map[string]struct {
		env  []string
		args []string
		want string
	}{
		"no command":           {nil, nil, `no command (chatctl -help lists the commands)`},
		"another command":      {nil, []string{"sned"}, `there is no command "sned" (chatctl -help lists the commands)`},
		"flags first":          {nil, []string{"-url", "x", "who"}, `flags go after the command, as in chatctl send -url … (chatctl -help lists the commands)`},
		"help on two":          {nil, []string{"help", "send", "tail"}, `help takes one command (chatctl -help lists the commands)`},
		"help on none":         {nil, []string{"help", "sned"}, `there is no command "sned" (chatctl -help lists the commands)`},
		"no such flag":         {nil, []string{"who", "-chanel", "ops"}, `flag provided but not defined: -chanel (chatctl help who lists the flags)`},
		"an argument too many": {who, []string{"who", "ops"}, `unexpected argument "ops" (chatctl help who lists the flags)`},
		"tail with one":        {who, []string{"tail", "ops"}, `unexpected argument "ops" (chatctl help tail lists the flags)`},
		"bench with one":       {who, []string{"bench", "ops"}, `unexpected argument "ops" (chatctl help bench lists the flags)`},
		"nobody":               {nil, []string{"who"}, `-user or -token-file is required (chatctl help who lists the flags)`},
		"nobody to bench as":   {nil, []string{"bench"}, `-user or -token-file is required (chatctl help bench lists the flags)`},

		"two tokens":            {nil, []string{"who", "-token", "a", "-token-file", "b"}, `-token and -token-file exclude each other (chatctl help who lists the flags)`},
		"a token and a user":    {nil, []string{"who", "-token", "a", "-user", "b"}, `-token and -user exclude each other (chatctl help who lists the flags)`},
		"both as variables":     {[]string{"CHATCTL_TOKEN_FILE=a", "CHATCTL_USER=b"}, []string{"who"}, `CHATCTL_TOKEN_FILE and CHATCTL_USER exclude each other (chatctl help who lists the flags)`},
		"a password of nobody":  {nil, []string{"who", "-password-file", "x"}, `-password-file needs -user (chatctl help who lists the flags)`},
		"no user's name":        {nil, []string{"who", "-user", " ana"}, `-user: " ana" cannot be a user's name (chatctl help who lists the flags)`},
		"two ways to trust":     {[]string{"CHATCTL_INSECURE=true"}, []string{"who", "-ca", "x"}, `CHATCTL_INSECURE and -ca exclude each other (chatctl help who lists the flags)`},
		"insecure or not":       {[]string{"CHATCTL_INSECURE=perhaps"}, []string{"who"}, `invalid value "perhaps" for CHATCTL_INSECURE (-insecure): parse error (chatctl help who lists the flags)`},
		"an address of no kind": {nil, []string{"who", "-url", "localhost:8443"}, `-url is not https:// or http:// and a host (chatctl help who lists the flags)`},
		"an address of nothing": {[]string{"CHATCTL_URL=https://"}, []string{"who"}, `CHATCTL_URL is without a host (chatctl help who lists the flags)`},
		"an address with more":  {nil, []string{"who", "-url", "https://localhost/?a=b"}, `-url is with more than a path behind the host (chatctl help who lists the flags)`},
		"an address of control": {nil, []string{"who", "-url", "https://local\nhost"}, `-url is no URL such as https://localhost:8443 (chatctl help who lists the flags)`},

		"nothing to send":         {who, []string{"send"}, `no text to send; - sends the lines of stdin (chatctl help send lists the flags)`},
		"an empty text":           {who, []string{"send", ""}, `the text is empty (chatctl help send lists the flags)`},
		"no text but bytes":       {who, []string{"send", "caf\xe9"}, `the text is not UTF-8 (chatctl help send lists the flags)`},
		"to two places":           {who, []string{"send", "-to", "ana", "-channel", "ops", "x"}, `-channel and -to exclude each other (chatctl help send lists the flags)`},
		"to no channel":           {who, []string{"send", "-channel", "a b", "x"}, `-channel "a b" cannot be a channel's name (chatctl help send lists the flags)`},
		"to no user":              {who, []string{"send", "-to", "ana ", "x"}, `-to "ana " cannot be a user's name (chatctl help send lists the flags)`},
		"a flag behind the text":  {who, []string{"send", "hello", "-channel", "ops"}, `-channel must go before "hello"; put -- before the text if it is no flag (chatctl help send lists the flags)`},
		"one with its value":      {who, []string{"send", "hello", "--to=ana"}, `-to must go before "hello"; put -- before the text if it is no flag (chatctl help send lists the flags)`},
		"nobody to kick":          {who, []string{"kick"}, `kick takes one user (chatctl help kick lists the flags)`},
		"two to kick":             {who, []string{"kick", "ana", "bob"}, `kick takes one user (chatctl help kick lists the flags)`},
		"no user to kick":         {who, []string{"kick", ""}, `"" cannot be a user's name (chatctl help kick lists the flags)`},
		"who is in no channel":    {who, []string{"who", "-channel", "a b"}, `-channel "a b" cannot be a channel's name (chatctl help who lists the flags)`},
		"to follow no channel":    {who, []string{"tail", "-channel", "a b"}, `invalid value "a b" for flag -channel: not a valid channel name (chatctl help tail lists the flags)`},
		"to follow somebody":      {who, []string{"tail", "-channel", "@ana"}, `invalid value "@ana" for flag -channel: your user channel is always followed, and those of others cannot be (chatctl help tail lists the flags)`},
		"a negative number":       {who, []string{"tail", "-n", "-1"}, `invalid value "-1" for flag -n: not a number above zero (chatctl help tail lists the flags)`},
		"too many":                {who, []string{"tail", "-n", "10001"}, `invalid value "10001" for flag -n: more than 10000 (chatctl help tail lists the flags)`},
		"no id":                   {who, []string{"tail", "-since", "x"}, `invalid value "x" for flag -since: not the id of a message (chatctl help tail lists the flags)`},
		"an id of another":        {who, []string{"tail", "-since", "1-abc-ops"}, `-since 1-abc-ops needs -channel ops (chatctl help tail lists the flags)`},
		"two beginnings":          {who, []string{"tail", "-since", "1-abc", "-n", "3"}, `-n and -since exclude each other (chatctl help tail lists the flags)`},
		"no sockets":              {who, []string{"bench", "-n", "0"}, `invalid value "0" for flag -n: not a number above zero (chatctl help bench lists the flags)`},
		"no rate":                 {who, []string{"bench", "-rate", "NaN"}, `invalid value "NaN" for flag -rate: not a number above zero, and a million at the most (chatctl help bench lists the flags)`},
		"too small":               {who, []string{"bench", "-size", "8"}, `invalid value "8" for flag -size: not a number of 40 to 1048576 (chatctl help bench lists the flags)`},
		"more than can be":        {who, []string{"bench", "-n", "10000", "-rate", "1000000", "-for", "100h"}, `10000 sockets for 100h0m0s at 1e+06 a second are too many to keep track of (chatctl help bench lists the flags)`},
		"two ways to be somebody": {nil, []string{"bench", "-secret-file", "x", "-user", "ana"}, `-secret-file and -user exclude each other (chatctl help bench lists the flags)`},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			stdout, stderr, code := ctl(t).RunToEnd(t, test.env, test.args...)
			if want := "chatctl: " + test.want + "\n"; code != 2 || stdout != "" || stderr != want {
				t.Errorf("exit code %d, prints %q, says\n%swant\n%s", code, stdout, stderr, want)
			}
		})
	}
}

func TestWhatGoesWrongIsOneLineAndExitCode1(t *testing.T) {
	t.Parallel()
	d := startServer(t)
	plain := startServer(t, "-plaintext")
	host := strings.TrimPrefix(d.URL, "https://")
	nobody := chatdtest.FreeAddr(t)
	silent := listening(t, func(net.Conn) {})
	stranger := listening(t, func(conn net.Conn) {
		conn.Read(make([]byte, 4096))
		conn.Write([]byte("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")) // whatever was asked
	})
	wrong := chatdtest.WriteFile(t, "wrong", "not the password")
	empty := chatdtest.WriteFile(t, "empty", "\n")
	huge := chatdtest.WriteFile(t, "huge", strings.Repeat("x", 1<<20))
	token := chatdtest.WriteFile(t, "token", "not.a.token\n")
	with := func(extra ...string) []string { return append(d.as("user"), extra...) }
	tests := map[string]struct {
		env  []string
		args []string
		want string
	}{
		"a wrong password":          {with("CHATCTL_PASSWORD_FILE=" + wrong), []string{"who"}, `wrong username or password \(of user at ` + host + `\)`},
		"to tail":                   {with("CHATCTL_PASSWORD_FILE=" + wrong), []string{"tail"}, `wrong username or password \(of user at ` + host + `\)`},
		"to bench":                  {with("CHATCTL_PASSWORD_FILE=" + wrong), []string{"bench"}, `wrong username or password \(of user at ` + host + `\)`},
		"another user":              {with(), []string{"who", "-user", "ana"}, `wrong username or password \(of ana at ` + host + `\)`},
		"no admin":                  {with(), []string{"who"}, `not allowed: for admins only`},
		"no admin to kick":          {with(), []string{"kick", "admin"}, `not allowed: for admins only`},
		"no admin to send":          {with(), []string{"send", "hello"}, `not allowed: only an admin may broadcast`},
		"no admin to bench":         {with(), []string{"bench", "-n", "1"}, `broadcasting: forbidden: only an admin may broadcast`},
		"no password file":          {with("CHATCTL_PASSWORD_FILE=/nowhere"), []string{"who"}, `reading the password: open /nowhere: no such file or directory`},
		"an empty password file":    {with("CHATCTL_PASSWORD_FILE=" + empty), []string{"who"}, `reading the password: the first line of ` + empty + ` is empty`},
		"an endless password file":  {with("CHATCTL_PASSWORD_FILE=/dev/zero"), []string{"who"}, `reading the password: /dev/zero is over 16384 bytes`},
		"a token that is none":      {d.anybody(), []string{"who", "-token", "not.a.token"}, host + ` rejects the token: .*`},
		"one with a space":          {d.anybody(), []string{"who", "-token", "a b"}, `the token contains a space, a control character or a character that is not ASCII`},
		"one of a file":             {d.anybody(), []string{"tail", "-token-file", token}, `the token in ` + token + ` is invalid or about to expire, and the file has no new one yet`},
		"a file with more":          {d.anybody(), []string{"who", "-token-file", wrong}, `reading the token: ` + wrong + ` must contain one token and nothing else`},
		"a file with far more":      {d.anybody(), []string{"who", "-token-file", huge}, `reading the token: ` + huge + ` is over 16384 bytes`},
		"a certificate of anybody":  {with("CHATCTL_INSECURE="), []string{"who"}, `the certificate of ` + host + ` is not trusted: x509: .* \(-ca names its authority, -insecure trusts any\)`},
		"to send by it":             {with("CHATCTL_INSECURE="), []string{"send", "hello"}, `the certificate of ` + host + ` is not trusted: x509: .*`},
		"to tail by it":             {with("CHATCTL_INSECURE="), []string{"tail"}, `the certificate of ` + host + ` is not trusted: x509: .*`},
		"no authority":              {with("CHATCTL_INSECURE=", "CHATCTL_CA="+token), []string{"who"}, `reading the authorities of CHATCTL_CA: no certificate in ` + token},
		"nobody listens":            {with("CHATCTL_URL=https://" + nobody), []string{"send", "hello"}, `cannot connect to ` + nobody + `: dial tcp ` + nobody + `: connect: connection refused`},
		"nor to tail":               {with("CHATCTL_URL=https://" + nobody), []string{"tail"}, `cannot connect to ` + nobody + `: dial tcp ` + nobody + `: connect: connection refused`},
		"no such host":              {with("CHATCTL_URL=https://nowhere.invalid"), []string{"who"}, `cannot connect to nowhere\.invalid: dial tcp: lookup nowhere\.invalid.*`},
		"HTTP to TLS":               {with("CHATCTL_URL=http://" + host), []string{"who"}, host + ` answers with 400: is it https:// rather than http://\?`},
		"TLS to HTTP":               {with("CHATCTL_URL=https" + strings.TrimPrefix(plain.URL, "http")), []string{"who"}, `127\.0\.0\.1:\d+ does not use TLS: is it http:// rather than https://\?`},
		"another path":              {with("CHATCTL_URL=" + d.URL + "/chat"), []string{"who"}, `nothing is at ` + d.URL + `/chat, or the service has no login \(use -token-file\)`},
		"another path with a token": {append(d.anybody(), "CHATCTL_URL="+d.URL+"/chat"), []string{"tail", "-token-file", token}, `nothing is at ` + d.URL + `/chat: -url is where the service is mounted`},
		"another service":           {with("CHATCTL_URL=http://" + stranger), []string{"who"}, `.*protocol error.*`},
		"one that hangs up":         {with("CHATCTL_URL=https://" + silent), []string{"who"}, `.*EOF.*|.*connection reset.*`},
		"too long":                  {d.as("admin"), []string{"send", strings.Repeat("long ", 7000)}, `content is over 32768 bytes`},
		"a secret too short":        {d.anybody(), []string{"bench", "-secret-file", token}, `using the secret in ` + token + `: .*`},
		"another secret":            {d.anybody(), []string{"bench", "-secret-file", chatdtest.WriteFile(t, "secret", strings.Repeat("x", 32))}, `.* rejects the token.*`},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			stdout, stderr, code := ctl(t).RunToEnd(t, test.env, test.args...)
			if code != 1 || stdout != "" || !regexp.MustCompile(`^chatctl: (`+test.want+`)\n$`).MatchString(stderr) {
				t.Errorf("exit code %d, prints %q, says\n%swant\nchatctl: %s", code, stdout, stderr, test.want)
			}
			if strings.Contains(stderr, chatdtest.Passwords["user"]) || strings.Contains(stderr, "not.a.token") {
				t.Errorf("there is a secret in %q", stderr)
			}
		})
	}
}

// listening answers each connection with fn and closes it.
func listening(t *testing.T, fn func(net.Conn)) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			fn(conn)
			conn.Close()
		}
	}()
	t.Cleanup(func() {
		l.Close()
		<-done
	})
	return l.Addr().String()
}

func TestAPasswordInAnAddressIsNotRepeated(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		env, args []string
	}{
		{nil, []string{"who", "-url", "https://ana:hunter2@localhost"}},
		{nil, []string{"who", "-url", "https://ana:hunter2@local host"}},
		{[]string{"CHATCTL_URL=ana:hunter2@localhost"}, []string{"who"}},
	} {
		_, stderr, code := ctl(t).RunToEnd(t, test.env, test.args...)
		if code != 2 || strings.Contains(stderr, "hunter2") {
			t.Errorf("%q: exit code %d, says %q", test.args, code, stderr)
		}
	}
}

func TestHelpAndVersion(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		args []string
		want []string
	}{
		"-help":     {[]string{"-help"}, []string{"send ", "tail ", "who ", "kick ", "bench ", "CHATCTL_URL"}},
		"-h":        {[]string{"-h"}, []string{"send "}},
		"help":      {[]string{"help"}, []string{"send "}},
		"help send": {[]string{"help", "send"}, []string{"chatctl send [flags] text…", "-channel channel\n", "-url address   CHATCTL_URL   default https://localhost:8443\n"}},
		"tail -h":   {[]string{"tail", "-h"}, []string{"chatctl tail [flags]", "-since id\n"}},
		"-version":  {[]string{"-version"}, []string{"chatctl ", "go1."}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			stdout, stderr, code := ctl(t).RunToEnd(t, nil, test.args...)
			if code != 0 || stderr != "" {
				t.Errorf("exit code %d, says %q", code, stderr)
			}
			for _, want := range test.want {
				if !strings.Contains(stdout, want) {
					t.Errorf("no %q in\n%s", want, stdout)
				}
			}
			for line := range strings.Lines(stdout) {
				if n := len([]rune(line)); n > 100 {
					t.Errorf("%d characters: %s", n, line)
				}
			}
		})
	}
}

func TestWhoOneIsFollowsFromFlagsBeforeTheEnvironment(t *testing.T) {
	t.Parallel()
	d := startServer(t)
	secret := func(text string) string { return chatdtest.WriteFile(t, "secret", text) }
	adminToken, userToken := d.Token("admin"), d.Token("user")
	admin, user := `^nobody is connected\n$`, `^chatctl: not allowed: for admins only\n$`
	tests := map[string]struct {
		env  []string
		args []string
		want string
	}{
		"a token":                  {[]string{"CHATCTL_TOKEN=" + adminToken}, nil, admin},
		"a token's file":           {[]string{"CHATCTL_TOKEN_FILE=" + secret(adminToken+"\n")}, nil, admin},
		"a flag before a variable": {[]string{"CHATCTL_TOKEN=" + userToken}, []string{"-token", adminToken}, admin},
		"a file before a variable": {[]string{"CHATCTL_TOKEN=" + userToken}, []string{"-token-file", secret(adminToken)}, admin},
		"a token before a file":    {[]string{"CHATCTL_TOKEN_FILE=" + secret(userToken)}, []string{"-token", adminToken}, admin},
		"a token before a user":    {d.as("admin"), []string{"-token", userToken}, user},
		"a user before a token":    {[]string{"CHATCTL_TOKEN=" + userToken}, []string{"-user", "admin", "-password-file", secret(chatdtest.Passwords["admin"] + "\r\nsecond line")}, admin},
		"another user's password":  {d.as("user"), []string{"-user", "admin", "-password-file", secret(chatdtest.Passwords["admin"])}, admin},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			stdout, stderr, _ := ctl(t).RunToEnd(t, append(d.anybody(), test.env...), append([]string{"who"}, test.args...)...)
			if !regexp.MustCompile(test.want).MatchString(stdout + stderr) {
				t.Errorf("prints %q, says %q", stdout, stderr)
			}
		})
	}
}

func TestSecretsMayComeByAPipe(t *testing.T) {
	t.Parallel()
	d := startServer(t)
	for _, test := range []struct {
		stdin string
		args  []string
	}{
		{d.Token("admin"), []string{"-token-file", "/dev/stdin"}},
		{chatdtest.Passwords["admin"], []string{"-user", "admin", "-password-file", "/dev/stdin"}},
	} {
		p := ctl(t)
		p.Stdin = test.stdin
		for _, command := range []string{"who", "bench"} {
			args := append([]string{command}, test.args...)
			if command == "bench" {
				args = append(args, "-n", "3", "-for", "100ms", "-rate", "50")
			}
			if _, stderr, code := p.RunToEnd(t, d.anybody(), args...); code != 0 {
				t.Errorf("%q: exit code %d, says %q", args, code, stderr)
			}
		}
	}
}

func TestAPrivateAuthorityIsTrustedWhenNamed(t *testing.T) {
	t.Parallel()
	cert, key, _ := chatdtest.Certificate(t)
	d := startServer(t, "-tls-cert", cert, "-tls-key", key)
	env := append(d.as("admin"), "CHATCTL_INSECURE=")
	if _, stderr, code := ctl(t).RunToEnd(t, env, "who", "-ca", cert); code != 0 {
		t.Errorf("exit code %d, says %q", code, stderr)
	}
	// The certificate is for 127.0.0.1 only.
	env = append(env, "CHATCTL_URL="+strings.Replace(d.URL, "127.0.0.1", "localhost", 1))
	if _, stderr, code := ctl(t).RunToEnd(t, env, "who", "-ca", cert); code != 1 || !strings.Contains(stderr, "is not trusted") {
		t.Errorf("by another name: exit code %d, says %q", code, stderr)
	}
}

func TestATokenFileIsReadAgainWhenTheTokenEnds(t *testing.T) {
	t.Parallel()
	d := startServer(t, "-token-ttl", "3s")
	path := chatdtest.WriteFile(t, "token", d.Token("user"))
	p := ctl(t).Begin(t, d.anybody(), "tail", "-token-file", path)
	d.awaitOnline("user", "")
	wstest.Eventually(t, "the token to end", func() bool {
		status, _ := d.Request(http.MethodGet, "/messages", readToken(t, path), "")
		return status == http.StatusUnauthorized
	})
	rewrite(t, path, d.Token("user"))
	wstest.Eventually(t, "a message to come", func() bool {
		d.publish("", "hello")
		return strings.Contains(p.Printed(), "hello")
	})
}

// Output that head cuts short is no error. A full disk is one.
func TestAClosedStdoutIsQuietAndAFullOneIsNot(t *testing.T) {
	t.Parallel()
	d := startServer(t)
	program := ctl(t)
	for to, want := range map[string]string{
		"| true":      "0\n",
		"> /dev/full": "chatctl: writing to stdout: write /dev/stdout: no space left on device\n1\n",
	} {
		sh := exec.Command("bash", "-c", `exec 2>&1 3>&1; { "$0" who; echo $? >&3; } `+to, program.Path)
		sh.Env = append(append(sh.Environ(), program.Env...), d.as("admin")...)
		out, err := sh.Output()
		if err != nil || string(out) != want {
			t.Errorf("%s: %q, error %v", to, out, err)
		}
	}
}

// chatctl warns if a password or token goes unencrypted to another machine.
func TestPlainHTTPToAnotherMachineIsWarnedOf(t *testing.T) {
	t.Parallel()
	plain := startServer(t, "-plaintext", "-addr", "0.0.0.0:0")
	_, port, err := net.SplitHostPort(strings.TrimPrefix(plain.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	password := "CHATCTL_PASSWORD_FILE=" + chatdtest.WriteFile(t, "password", chatdtest.Passwords["admin"])
	token := chatdtest.WriteFile(t, "token", plain.Token("admin"))
	tests := map[string]struct {
		host string
		args []string
		want string // "": nothing
	}{
		"a password":            {"0.0.0.0", []string{"who", "-user", "admin"}, "the password"},
		"a token":               {"0.0.0.0", []string{"who", "-token-file", token}, "the token"},
		"for sending":           {"0.0.0.0", []string{"send", "-token-file", token, "hello"}, "the token"},
		"to measure":            {"0.0.0.0", []string{"bench", "-token-file", token, "-n", "1", "-for", "100ms"}, "the token"},
		"within this machine":   {"127.0.0.1", []string{"who", "-user", "admin"}, ""},
		"likewise, by its name": {"localhost", []string{"who", "-token-file", token}, ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			env := []string{"CHATCTL_URL=http://" + test.host + ":" + port}
			if slices.Contains(test.args, "-user") {
				env = append(env, password)
			}
			_, stderr, _ := ctl(t).RunToEnd(t, env, test.args...)
			want := "chatctl: warning: " + test.want + " goes to " + test.host + ":" + port + " over http://, where others on the network can read it: use https://\n"
			if test.want == "" && strings.Contains(stderr, "warning") || test.want != "" && strings.Count(stderr, want) != 1 {
				t.Errorf("it says %q, want %q", stderr, want)
			}
		})
	}
}

func TestOnThisMachine(t *testing.T) {
	for host, want := range map[string]bool{
		"localhost": true, "LOCALHOST.": true, "a.localhost": true, "127.0.0.1": true, "127.9.9.9": true, "::1": true, "::ffff:127.0.0.1": true,
		"localhost.example.com": false, "notlocalhost": false, "10.0.0.1": false, "::2": false, "chat": false, "0.0.0.0": false,
	} {
		if got := onThisMachine(host); got != want {
			t.Errorf("%s: %t", host, got)
		}
	}
}

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"text/tabwriter"

	"github.com/reto10/chat"
	"github.com/reto10/chat/client"
	"github.com/reto10/chat/internal/cli"
	"github.com/reto10/chat/internal/wire"
)

var whoCommand = command{
	name:    "who",
	summary: "lists connected users",
	about: `Lists the connected users by name, with the number of their sockets and the time
when the first of these connected. Only admins may do this.
`,
	define: func(flags *flag.FlagSet) func(context.Context, *session, []string) error {
		channel := flags.String("channel", "", "list only the users in this `channel`")
		asJSON := flags.Bool("json", false, "print the server's answer, one JSON object")
		return func(ctx context.Context, s *session, args []string) error {
			if len(args) > 0 {
				return cli.Usagef("unexpected argument %q", args[0])
			}
			if *channel != "" && !chat.ValidChannel(*channel) {
				return cli.Usagef("-channel %q cannot be a channel's name", *channel)
			}
			return s.who(ctx, *channel, *asJSON)
		}
	},
}

func (s *session) who(ctx context.Context, channel string, asJSON bool) error {
	api, err := s.api()
	if err != nil {
		return err
	}
	users, err := api.Connected(ctx, channel)
	if err != nil {
		return s.explain(err)
	}
	if !asJSON {
		return s.std.say(string(usersTable(users)))
	}
	text, err := usersJSON(users)
	if err != nil {
		return err
	}
	_, err = s.std.out.Write(text)
	return err
}

// usersTable returns the list for people.
func usersTable(users []client.Presence) []byte {
	if len(users) == 0 {
		return []byte("nobody is connected\n")
	}
	var text bytes.Buffer
	table := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "USER\tROLE\tSOCKETS\tSINCE")
	for _, u := range users {
		fmt.Fprintf(table, "%s\t%s\t%d\t%s\n", name(u.User), name(u.Role), u.Connections, u.Since.Local().Format(timeLayout))
	}
	_ = table.Flush() // a buffer takes everything
	return text.Bytes()
}

// usersJSON returns the list as GET /users/connected answers.
func usersJSON(users []client.Presence) ([]byte, error) {
	type user struct {
		Username    string `json:"username"`
		Role        string `json:"role"`
		Connections int    `json:"connections"`
		Since       string `json:"since"`
	}
	answer := struct {
		Count int    `json:"count"`
		Users []user `json:"users"`
	}{len(users), make([]user, len(users))}
	for i, u := range users {
		answer.Users[i] = user{u.User, u.Role, u.Connections, wire.Time(u.Since)}
	}
	text, err := json.Marshal(answer)
	if err != nil {
		return nil, err
	}
	return append(text, '\n'), nil
}

var kickCommand = command{
	name:    "kick",
	args:    "user",
	summary: "disconnects a user",
	about: `Closes all sockets of a user and prints how many there were. The user can reconnect
as long as the token or the password is valid. Only admins may do this.
`,
	define: func(*flag.FlagSet) func(context.Context, *session, []string) error {
		return func(ctx context.Context, s *session, args []string) error {
			switch {
			case len(args) != 1:
				return cli.Usagef("kick takes one user")
			case !chat.ValidUsername(args[0]):
				return cli.Usagef("%q cannot be a user's name", args[0])
			}
			return s.kick(ctx, args[0])
		}
	},
}

func (s *session) kick(ctx context.Context, user string) error {
	api, err := s.api()
	if err != nil {
		return err
	}
	closed, err := api.Disconnect(ctx, user)
	if err != nil {
		return s.explain(err)
	}
	text := fmt.Sprintf("closed %d sockets of %s\n", closed, name(user))
	switch closed {
	case 0:
		text = fmt.Sprintf("%s was not connected: nothing to close\n", name(user))
	case 1:
		text = fmt.Sprintf("closed the socket of %s\n", name(user))
	}
	return s.std.say(text)
}

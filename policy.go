package chat

import "context"

// Policy decides what users may do. It decides by the [Identity] that the
// [Authenticator] returned for the user's token.
//
// A nil error allows the action. An error that wraps [ErrForbidden] or [ErrInvalid]
// rejects it. Any other error means that the policy cannot decide now, and the client
// gets "unavailable".
//
// The methods must be safe for concurrent use.
type Policy interface {
	// Join decides whether a user may join a channel and read its history. The service
	// does not ask about everyone's channel, which every user is in, or about a user
	// channel, which only its user may read (see [UserChannel]).
	Join(ctx context.Context, who Identity, channel string) error
	// Publish decides whether a user may publish to a channel. "" is everyone's channel.
	Publish(ctx context.Context, who Identity, channel string) error
}

// DefaultPolicy allows every user to join every channel, and only admins to publish.
// Embed it to change one of the two.
type DefaultPolicy struct{}

// Join implements [Policy].
func (DefaultPolicy) Join(context.Context, Identity, string) error { return nil }

// Publish implements [Policy].
func (DefaultPolicy) Publish(_ context.Context, who Identity, _ string) error {
	if !who.User.Admin() {
		return wrapf(ErrForbidden, "only an admin may broadcast")
	}
	return nil
}

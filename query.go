package chat

import (
	"net/http"
	"net/url"
)

// readQuery reads a request's query. [url.URL.Query] leaves out what it cannot read,
// and the rest would be another request. A parameter of which there is to be one must
// not come twice: two programs on the way may each take another one. Unknown
// parameters are passed over. The errors wrap ErrInvalid and repeat nothing, since
// there may be a token in the query.
func readQuery(r *http.Request, once ...string) (url.Values, error) {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, wrapf(ErrInvalid, "the query cannot be read; in a name or a value ; is %%3B and %% is %%25")
	}
	for _, name := range append(once, "token") {
		if len(query[name]) > 1 {
			return nil, wrapf(ErrInvalid, "the query has more than one %s", name)
		}
	}
	return query, nil
}

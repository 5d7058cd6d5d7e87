package apitest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/legacy"
)

// contract is docs/openapi.yaml, made strict: objects have no other fields and answers no
// other headers than it names, and its rules for all other methods and paths are explicit.
type contract struct {
	doc    *openapi3.T
	router routers.Router
	seen   map[string]bool // "operation status"
}

// anyMethod are the methods of an OpenAPI path.
var anyMethod = []string{"get", "put", "post", "delete", "options", "head", "patch", "trace"}

func newContract(t *testing.T) *contract {
	t.Helper()
	raw := load(t, openAPIFile)
	strict(raw)
	delete(raw, "servers") // the tests' are elsewhere
	paths := at(t, raw, "paths")
	paths["/{anything}"] = object{
		"x-any-other-method": paths["x-any-other-path"],
		"parameters": []any{object{
			"name": "anything", "in": "path", "required": true, "schema": object{"type": "string"},
		}},
	}
	for path, item := range paths {
		item, _ := item.(object)
		response, listed := item["x-any-other-method"]
		if !strings.HasPrefix(path, "/") {
			continue
		}
		if !listed {
			t.Errorf("%s says nothing of other methods", path)
		}
		for _, method := range anyMethod {
			if item[method] == nil {
				name := response.(object)["$ref"].(string)
				status := map[string]string{"NotFound": "404", "MethodNotAllowed": "405"}[name[strings.LastIndex(name, "/")+1:]]
				item[method] = object{
					"operationId": method + " " + path,
					"security":    []any{},
					"responses":   object{status: response},
				}
			}
		}
	}
	text, err := json.Marshal(raw)
	if err != nil {
		t.Fatal(err)
	}
	c := &contract{seen: make(map[string]bool)}
	if c.doc, err = openapi3.NewLoader().LoadFromData(text); err != nil {
		t.Fatal(err)
	}
	if c.router, err = legacy.NewRouter(c.doc); err != nil {
		t.Fatal(err)
	}
	return c
}

// answer is an answer of a server.
type answer struct {
	status int
	header http.Header
	body   []byte
}

func (a answer) field(t *testing.T, name string) any {
	t.Helper()
	var fields object
	if err := json.Unmarshal(a.body, &fields); err != nil {
		t.Fatalf("%s: %v", a.body, err)
	}
	return fields[name]
}

// request is a request of a test.
type request struct {
	method, path string // with the query
	token        string // in the Authorization header
	kind, body   string // Content-Type
	header       http.Header
}

func (r request) build(t *testing.T, base string) *http.Request {
	t.Helper()
	var body io.Reader
	if r.body != "" {
		body = strings.NewReader(r.body)
	}
	req, err := http.NewRequestWithContext(t.Context(), r.method, base+r.path, body)
	if err != nil {
		t.Fatal(err)
	}
	for name, values := range r.header {
		req.Header[name] = values
	}
	if r.token != "" {
		req.Header.Set("Authorization", "Bearer "+r.token)
	}
	if r.kind != "" {
		req.Header.Set("Content-Type", r.kind)
	}
	return req
}

// do makes the request and compares the answer with the contract. If the server accepts the
// request, the contract must, too. It returns what the contract says of the request.
func (c *contract) do(t *testing.T, client *http.Client, base string, r request) (a answer, wrong error) {
	t.Helper()
	resp, err := client.Do(r.build(t, base))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	a = answer{status: resp.StatusCode, header: resp.Header}
	if a.status != http.StatusSwitchingProtocols {
		if a.body, err = io.ReadAll(resp.Body); err != nil {
			t.Fatal(err)
		}
	}
	input, err := c.input(r.build(t, base))
	if err != nil {
		t.Fatalf("%s %s: %v", r.method, r.path, err)
	}
	wrong = openapi3filter.ValidateRequest(t.Context(), input)
	if wrong != nil && a.status < 400 {
		t.Errorf("%s %s: answered %d, not allowed by the document: %v", r.method, r.path, a.status, wrong)
	}
	if err := c.check(input, a); err != nil {
		t.Errorf("%s %s: %d %v\n%s: %v", r.method, r.path, a.status, a.header, a.body, err)
	}
	c.seen[fmt.Sprint(input.Route.Operation.OperationID, " ", a.status)] = true
	return a, wrong
}

func (c *contract) input(req *http.Request) (*openapi3filter.RequestValidationInput, error) {
	route, params, err := c.router.FindRoute(req)
	if err != nil {
		return nil, err
	}
	return &openapi3filter.RequestValidationInput{
		Request: req, PathParams: params, Route: route,
		Options: &openapi3filter.Options{
			AuthenticationFunc: hasToken, IncludeResponseStatus: true, RejectWhenRequestBodyNotSpecified: true, SkipSettingDefaults: true,
		},
	}, nil
}

// hasToken returns an error if a scheme needs a token and there is none.
func hasToken(_ context.Context, in *openapi3filter.AuthenticationInput) error {
	req := in.RequestValidationInput.Request
	var found bool
	switch in.SecuritySchemeName {
	case "bearer":
		found = strings.HasPrefix(req.Header.Get("Authorization"), "Bearer ")
	case "subprotocol":
		found = strings.Contains(req.Header.Get("Sec-WebSocket-Protocol"), "bearer.")
	case "query":
		found = req.URL.Query().Has("token")
	}
	if !found {
		return errors.New("no token there")
	}
	return nil
}

// byServer are headers that net/http adds.
var byServer = []string{"Content-Type", "Content-Length", "Date", "Connection"}

// check compares an answer with the contract.
func (c *contract) check(input *openapi3filter.RequestValidationInput, a answer) error {
	documented := input.Route.Operation.Responses.Value(strconv.Itoa(a.status))
	if documented == nil {
		return errors.New("this status is not documented")
	}
	for name := range a.header {
		named := func(documented string) bool { return strings.EqualFold(documented, name) }
		if slices.ContainsFunc(byServer, named) {
			continue
		}
		known := false
		for other := range documented.Value.Headers {
			known = known || named(other)
		}
		if !known {
			return fmt.Errorf("the header %s is not documented", name)
		}
	}
	if input.Request.Method == http.MethodHead { // the library looks at none of these
		for name, header := range documented.Value.Headers {
			if header.Value.Required && a.header.Get(name) == "" {
				return fmt.Errorf("the header %s is missing", name)
			}
		}
	}
	if len(documented.Value.Content) == 0 && len(a.body) > 0 {
		return errors.New("a body that is not documented")
	}
	return openapi3filter.ValidateResponse(input.Request.Context(), &openapi3filter.ResponseValidationInput{
		RequestValidationInput: input, Status: a.status, Header: a.header,
		Body: io.NopCloser(bytes.NewReader(a.body)), Options: input.Options,
	})
}

// unseen returns the documented statuses that no test has caused.
func (c *contract) unseen() (missing []string) {
	for path, item := range c.doc.Paths.Map() {
		for method, op := range item.Operations() {
			for status := range op.Responses.Map() {
				// Of other paths and methods one is like all.
				generated := strings.HasPrefix(op.OperationID, strings.ToLower(method)+" ")
				if !generated && !c.seen[op.OperationID+" "+status] {
					missing = append(missing, fmt.Sprintf("%s %s (%s): %s", method, path, op.OperationID, status))
				}
			}
		}
	}
	slices.Sort(missing)
	return missing
}

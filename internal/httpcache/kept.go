package httpcache

import (
	"encoding/json"

	"chantal"
	"chantal/internal/cas"
)

// Kept calls use for the content of every answer that is kept in a store, with
// the URL that it was an answer to. What cannot be read is not kept.
func Kept(store *cas.Store, use func(url string, content chantal.Digest) error) error {
	return store.EachDerived(derivedPrefix, func(_ string, content []byte) error {
		r := new(resource)
		if json.Unmarshal(content, r) != nil || r.Form != resourceForm {
			return nil
		}
		for _, v := range r.Variants {
			if err := use(r.URL, v.Digest); err != nil {
				return err
			}
		}
		return nil
	})
}

package testenv

import (
	"archive/zip"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strings"
)

// underscored returns the form of a project's name that stands in file names.
func underscored(name string) string { return strings.NewReplacer("-", "_", ".", "_").Replace(name) }

// WheelName returns the file name of the wheel of p.
func WheelName(p Package) string {
	return fmt.Sprintf("%s-%s-py3-none-any.whl", underscored(p.Name), p.Version)
}

// SdistName returns the file name of the source distribution of p.
func SdistName(p Package) string { return fmt.Sprintf("%s-%s.tar.gz", underscored(p.Name), p.Version) }

// CoreMetadata returns METADATA, or PKG-INFO, of p. Depends holds requirements,
// one per line.
func CoreMetadata(p Package) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "Metadata-Version: 2.2\nName: %s\nVersion: %s\nSummary: %s, made for a test\n", p.Name, p.Version, p.Name)
	for dep := range strings.Lines(p.Depends) {
		fmt.Fprintf(&b, "Requires-Dist: %s\n", strings.TrimSpace(dep))
	}
	return b.Bytes()
}

// module returns the one module that wheels and sdists of p contain: its
// version, and Size bytes of payload.
func (p Package) module() []byte {
	return fmt.Appendf(nil, "__version__ = %q\npayload = %q\n", p.Version, base64.StdEncoding.EncodeToString(p.payload()))
}

// Wheel returns a wheel (wheel 1.0) that pip and uv install.
func Wheel(p Package) ([]byte, error) {
	info := fmt.Sprintf("%s-%s.dist-info/", underscored(p.Name), p.Version)
	files := []tarFile{
		{underscored(p.Name) + ".py", p.module()},
		{info + "METADATA", CoreMetadata(p)},
		{info + "WHEEL", []byte("Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")},
	}
	var record bytes.Buffer
	for _, f := range files {
		sum := sha256.Sum256(f.content)
		fmt.Fprintf(&record, "%s,sha256=%s,%d\n", f.name, base64.RawURLEncoding.EncodeToString(sum[:]), len(f.content))
	}
	fmt.Fprintf(&record, "%sRECORD,,\n", info)
	files = append(files, tarFile{info + "RECORD", record.Bytes()})
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for _, f := range files {
		w, err := z.CreateHeader(&zip.FileHeader{Name: f.name, Method: zip.Store, Modified: packed})
		if err != nil {
			return nil, fmt.Errorf("wheel %s: %w", p.Name, err)
		}
		if _, err := w.Write(f.content); err != nil {
			return nil, fmt.Errorf("wheel %s: %w", p.Name, err)
		}
	}
	if err := z.Close(); err != nil {
		return nil, fmt.Errorf("wheel %s: %w", p.Name, err)
	}
	return b.Bytes(), nil
}

// backend is a build backend (PEP 517) that needs nothing but Python: an
// installer can build the sdist without asking any index for build tools.
const backend = `import base64, hashlib, os, zipfile

def _info(text):
    return dict(line.split(": ", 1) for line in text.splitlines() if ": " in line)

def build_wheel(directory, config_settings=None, metadata_directory=None):
    text = open("PKG-INFO").read()
    fields = _info(text)
    name = fields["Name"].replace("-", "_").replace(".", "_")
    stem = name + "-" + fields["Version"]
    members = {
        name + ".py": open(name + ".py").read(),
        stem + ".dist-info/METADATA": text,
        stem + ".dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = ""
    for path, content in members.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(content.encode()).digest()).rstrip(b"=").decode()
        record += "%s,sha256=%s,%d\n" % (path, digest, len(content.encode()))
    members[stem + ".dist-info/RECORD"] = record + stem + ".dist-info/RECORD,,\n"
    wheel = stem + "-py3-none-any.whl"
    with zipfile.ZipFile(os.path.join(directory, wheel), "w") as z:
        for path, content in members.items():
            z.writestr(path, content)
    return wheel
`

// Sdist returns a source distribution with a build backend of its own.
func Sdist(p Package) ([]byte, error) {
	top := fmt.Sprintf("%s-%s/", underscored(p.Name), p.Version)
	const project = "[build-system]\nrequires = []\nbuild-backend = \"backend\"\nbackend-path = [\".\"]\n"
	b, err := tarball(gzip.BestSpeed, []tarFile{
		{top + "PKG-INFO", CoreMetadata(p)},
		{top + "pyproject.toml", []byte(project)},
		{top + "backend.py", []byte(backend)},
		{top + underscored(p.Name) + ".py", p.module()},
	})
	if err != nil {
		return nil, fmt.Errorf("sdist %s: %w", p.Name, err)
	}
	return b, nil
}

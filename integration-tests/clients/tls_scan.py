"""TLS by two scanners, graded by the rules that SSL Labs publishes (SSL Server Rating Guide): nothing worse than A."""

import json
import shutil
import subprocess
import xml.etree.ElementTree as xml

from system import PATIENCE_S, expect

NEEDS = ["sslscan", "openssl", "testssl"]
CELLS = {}
# What the guide caps or fails. Severities of the other scanner that would cost the A.
BAD = {"LOW", "MEDIUM", "HIGH", "CRITICAL"}
# Findings about the certificate of the throw-away authority and about plain HTTP: no matters of the TLS service.
OF_THE_CERTIFICATE = ("cert_", "DNS_CAArecord", "OCSP", "HSTS", "security_headers", "banner", "ipv", "scanTime", "engine_problem")


def run(system):
    way = next(iter(system.ways("bob", via=("router",), asleep=(False,))))
    with system.check("sslscan", "protocols, ciphers, keys: grade A", way):
        marks = scanned(system)
        grade, why = graded(marks)
        expect(grade == "A", f"grade {grade}: {why}")
    if not system.fast:
        with system.check("testssl.sh", "protocols, ciphers, forward secrecy, known holes: nothing found", way) as check:
            holes(system, check)


def scanned(system):
    """What sslscan saw."""
    report = system.work / "sslscan.xml"
    subprocess.run(
        ["sslscan", f"--xml={report}", "--sni-name=bob.localhost", f"127.0.0.1:{system.port['tls']}"],
        check=True, capture_output=True, timeout=PATIENCE_S,
    )
    return xml.parse(report).getroot().find("ssltest")


def graded(test):
    """The grade, and what costs it: 30 % protocol, 30 % key exchange, 40 % cipher, then the caps."""
    on = [f"{one.get('type').upper()} {one.get('version')}" for one in test.findall("protocol") if one.get("enabled") == "1"]
    ciphers = [(one.get("cipher"), int(one.get("bits")), one.get("sslversion")) for one in test.findall("cipher")]
    expect(on and ciphers, "the scanner saw no protocol")
    worth = {"SSL 2": 0, "SSL 3": 80, "TLS 1.0": 90, "TLS 1.1": 95, "TLS 1.2": 100, "TLS 1.3": 100}
    protocol = (max(worth[name] for name in on) + min(worth[name] for name in on)) / 2
    def strength(bits):
        return 0 if bits == 0 else 20 if bits < 128 else 80 if bits < 256 else 100
    cipher = (max(strength(bits) for _, bits, _ in ciphers) + min(strength(bits) for _, bits, _ in ciphers)) / 2
    def said(part, name):
        # What does not apply, the scanner leaves out.
        return any(one.get(name) == "1" for one in test.findall(part))
    # An elliptic key of 256 bits counts as RSA of 3072, and so do the groups of the exchange.
    key = 90
    score = 0.3 * protocol + 0.3 * key + 0.4 * cipher
    caps = [
        ("F", "SSL 2 is on", "SSL 2" in on),
        ("F", "null or anonymous ciphers", any("NULL" in name or "ADH" in name or "AECDH" in name for name, *_ in ciphers)),
        ("B", "a protocol below TLS 1.2", any(name in on for name in ("SSL 3", "TLS 1.0", "TLS 1.1"))),
        ("C", "RC4", any("RC4" in name for name, *_ in ciphers)),
        ("C", "TLS 1.2 is off", "TLS 1.2" not in on),
        ("B", "no forward secrecy", not all("DHE" in name or version == "TLSv1.3" for name, _, version in ciphers)),
        ("B", "no authenticated encryption", not all("GCM" in name or "POLY1305" in name for name, *_ in ciphers)),
        ("C", "compression", said("compression", "supported")),
        ("F", "insecure renegotiation", said("renegotiation", "supported") and not said("renegotiation", "secure")),
        ("A-", "TLS 1.3 is off", "TLS 1.3" not in on),
        ("F", "heartbleed", said("heartbleed", "vulnerable")),
    ]
    held = [(grade, why) for grade, why, holds in caps if holds]
    if held:
        return max(held, key=lambda cap: "A A- B C D F".split().index(cap[0]))
    return ("A" if score >= 80 else "B"), f"score {score:.0f}"


def holes(system, check):
    report = system.work / "testssl.json"
    check.sh(
        shutil.which("testssl"), "--quiet", "--color", "0", "--warnings", "off", "--ip", "127.0.0.1", "--nodns", "none", "--fast",
        "-p", "-s", "-f", "-U", "--jsonfile", report, f"bob.localhost:{system.port['tls']}", good=range(256), timeout=400,
    )
    found = json.loads(report.read_text())
    bad = [f"{one['id']}: {one['finding']}" for one in found if one["severity"] in BAD and not one["id"].startswith(OF_THE_CERTIFICATE)]
    expect(len(found) > 20, "the scanner did not get far")
    expect(not bad, "; ".join(bad))

"""A custom filter: drops texts with what may be somebody's e-mail address, telephone number or IP address.

vlmill build RECIPE --filter examples/filters/personal_data.py --set personal_data.phones=false

It finds what looks like personal data, and nothing else: no names, no postal addresses, no identity numbers. It drops
the whole paragraph, since filters rewrite nothing. What is made for examples (name@example.org, 192.0.2.1, 555-0123)
stays, as do private and loopback addresses. Telephone numbers are taken for such only with a country code or a word
such as "Tel." before them: otherwise sizes, dates and identifiers would go.
"""

import re
from dataclasses import dataclass
from ipaddress import ip_address

from vlmill import Drop

EMAIL = re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@((?:[^\W_](?:[\w-]{0,61}[^\W_])?\.)+[^\W\d_]{2,24})(?![\w-])")
PHONE = re.compile(
    r"(?:(?<![\w+])\+\d{1,3}"
    r"|\b(?:tel|phone|telephone|telefon|fon|mobile|mobil|fax|call|tél|telefono|teléfono|тел)\b\.?:?)"
    r"[ .\-/]{0,2}((?:\(?\d{1,5}\)?[ .\-/]?){2,6}\d{2,})",
    re.IGNORECASE,
)
IPV4 = re.compile(r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?![\w]|\.\d)")
EXAMPLES = re.compile(r"(?:^|\.)(?:example(?:\.(?:com|net|org))?|test|invalid|localhost)$", re.IGNORECASE)  # RFC 2606


@dataclass(frozen=True)
class PersonalData:
    """Drops text nodes with e-mail addresses, telephone numbers or public IPv4 addresses; their number is the score."""

    name = "personal_data"
    emails: bool = True
    phones: bool = True
    addresses: bool = True  # of the internet protocol, version 4

    def decide(self, samples, image_stats):
        """Yield what has to go."""
        for row, sample in samples:
            for index, node in enumerate(sample.nodes):
                found = self._found(node.text or "")
                if found:
                    yield Drop(row, index, found)

    def _found(self, text):
        emails = self.emails and sum(not EXAMPLES.search(match[1]) for match in EMAIL.finditer(text))
        phones = self.phones and sum(_is_phone(match[1]) for match in PHONE.finditer(text))
        return emails + phones + (self.addresses and sum(_is_public(match[0]) for match in IPV4.finditer(text)))


def _is_phone(number):
    """Seven to fifteen digits (ITU-T E.164), and none of the numbers of films, 555-01xx."""
    digits = re.sub(r"\D", "", number)
    return 7 <= len(digits) <= 15 and not digits[-7:].startswith("55501")


def _is_public(text):
    """Whether four numbers are a public address.

    With fewer than two of two digits they are a section or a version.
    """
    try:
        return sum(len(number) > 1 for number in text.split(".")) > 1 and ip_address(text).is_global
    except ValueError:
        return False

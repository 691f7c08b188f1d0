"""Words as the full-text index has them: the same for every database, whatever its own idea of a word.

A word is a run of letters and digits. Upper and lower case are one, accents are left out, and characters of scripts
without spaces are words of their own. What is not ASCII is written as `_<code point in base 36>_`, so an engine sees
nothing but `[a-z0-9_]`: no word of a user can be one of its operators, and none is cut otherwise than here.
"""

import re
import unicodedata

MAX_WORD = 80
"""Characters of an encoded word; what is longer is found by its beginning. InnoDB's index takes 84."""
_UNSPACED = "\u0e00-\u0eff\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_WORD = re.compile(f"[{_UNSPACED}]|[^\\W_{_UNSPACED}]+")
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


def words_of(text: str) -> list[str]:
    """Gives the words of a text, encoded, in order."""
    if text.isascii():
        return [word[:MAX_WORD] for word in _WORD.findall(text.lower())]
    plain = "".join(c for c in unicodedata.normalize("NFKD", text.casefold()) if not unicodedata.combining(c))
    return [_encoded(word) for word in _WORD.findall(plain.casefold())]


def _encoded(word: str) -> str:
    if word.isascii():
        return word[:MAX_WORD]
    encoded = ""
    for character in word:
        code = character if character.isascii() else f"_{_base36(ord(character))}_"
        if len(encoded) + len(code) > MAX_WORD:
            break  # never within a character
        encoded += code
    return encoded


def _base36(number: int) -> str:
    digits = ""
    while number:
        number, digit = divmod(number, 36)
        digits = _DIGITS[digit] + digits
    return digits

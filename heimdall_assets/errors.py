"""Every error the project raises on purpose, as one tree.

    HeimdallError                      one clear line: the thing, what was found, what was expected
    |-- InvalidInput                   what somebody handed in cannot be used
    |   |-- InvalidRecording           an IQ file, or the row that describes it
    |   |-- InvalidTable               an RSS table or a receiver list
    |   |   `-- UndecidedTable         one that leaves open what must be said first
    |   |-- InvalidIdentifier          a name or id that is not one (paths and addresses never are)
    |   `-- InvalidSetting             a spec, an environment variable, a command-line value
    |-- NotFound                       a session, station, model, object or file that is not there
    |   `-- NoHome                     a home in which nobody has made anything yet
    |-- CannotLocate                   data from which no honest position follows
    |-- Refused                        a request that would break a promise (overwrite, judge on training data, ...)
    |-- StorageError                   a store could not keep or give back what it was asked to
    |   |-- CorruptObject              bytes at rest that no longer match their digest
    |   `-- OutOfReach                 a service that holds them cannot be asked: nothing is known of any of them
    |-- WorkersLost                    machines that were handed work ended before it was done
    `-- MissingDependency              an optional package, server or weight file that is not installed

The command line turns any of them into one line and exit status 2.
"""


class HeimdallError(Exception):
    """Base of the tree; its message is one line fit for a user."""


class InvalidInput(HeimdallError):
    """What somebody handed in cannot be used."""


class InvalidRecording(InvalidInput):
    """An IQ file, or the row that describes it, cannot be used."""


class InvalidTable(InvalidInput):
    """An RSS table or a receiver list cannot be used."""


class UndecidedTable(InvalidTable):
    """A table leaves open what must be said first; ``questions`` are what is asked (``tables.questions``)."""

    def __init__(self, message: str, questions: tuple[object, ...] = ()):
        super().__init__(message)
        self.questions = questions


class InvalidIdentifier(InvalidInput):
    """A name or id is not one; paths and addresses never are."""


class InvalidSetting(InvalidInput):
    """A spec, an environment variable or a command-line value is out of range."""


class NotFound(HeimdallError):
    """A session, station, model, object or file is not there."""


class NoHome(NotFound):
    """Nobody has made anything in a home yet, and the request was none that begins one."""


class CannotLocate(HeimdallError):
    """No honest position follows from the data at hand."""


class Refused(HeimdallError):
    """The request would break a promise the project makes."""


class StorageError(HeimdallError):
    """A store could not keep or give back what it was asked to."""


class CorruptObject(StorageError):
    """Bytes at rest no longer match their digest."""


class OutOfReach(StorageError):
    """A service that holds bytes cannot be asked now: none of what it holds is known to be lost, damaged or there.

    Whoever goes on without what is lost or damaged stops at this one: going on would call everything lost.
    """


class WorkersLost(HeimdallError):
    """Machines that were handed work ended, or were cut off, before it was done."""


class MissingDependency(HeimdallError):
    """An optional package, server or weight file is not installed."""


UNUSABLE = (HeimdallError, ValueError, ArithmeticError, IndexError)
"""What one recording's content can provoke in readers and numerics: it costs that recording and no other."""


def describe_fault(error: BaseException) -> str:
    """Return ``error`` in one line: our own by its message, others with their kind in front."""
    text = " ".join(str(error).split())
    return text if isinstance(error, HeimdallError) else f"{type(error).__name__}: {text}"

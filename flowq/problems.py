"""The register of problems: every code that flowq reports, once, with its rule.

Every room takes its codes from here, under the name of the constant, and writes no code out. The
order is that of docs/problems.md, where each code has a section of its own.

To add a problem: add a constant here and its section to that page, and write a rule that reports
it. A code never gets a second meaning, and one that nothing reports any more is deleted. The tests
compare this register with the page and with the rooms.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class Rule:
    """What a correct workflow keeps to.

    Shape: `title` is one line; `rooms` are the modules and packages of flowq that report a
    violation, in alphabetical order: `declare` reads YAML or Python; `checks` looks at what was
    read, and at the functions that jobs call; `expressions` reads and evaluates an expression;
    `settings`, `inputs` and `planner` make a run.
    """

    code: str
    title: str
    rooms: tuple[str, ...]


_rules: dict[str, Rule] = {}
RULE_BY_CODE: Mapping[str, Rule] = MappingProxyType(_rules)
"""Every rule, in the order of the page."""


def _register(code: str, title: str, *rooms: str) -> str:
    _rules[code] = Rule(code, title, rooms)
    return code


# The text and its shapes --------------------------------------------------------------------------

NOT_UTF8 = _register("FQ101", "The file is UTF-8 text", "declare")
NOT_YAML = _register("FQ102", "The text is YAML", "declare")
UNKNOWN_KEY = _register("FQ103", "Every key is known", "declare")
KEY_TWICE = _register("FQ104", "No key appears twice in a map", "declare")
WRONG_SHAPE = _register("FQ105", "Every value has the shape that its key expects", "declare")
MISSING_KEY = _register("FQ106", "Required keys are present", "declare")
FOREIGN_WORD = _register("FQ108", "Keys are flowq's, not another tool's", "declare")
BAD_NAME = _register("FQ109", "Names use only characters that are allowed in job ids", "declare")
BAD_DURATION = _register(
    "FQ110", "A duration is a number with ms, s, m, h or d", "declare", "planner"
)
DOCUMENT_TOO_LARGE = _register(
    "FQ111", "The document is within the limits on size, depth and repetition", "declare"
)
BAD_ALIAS = _register("FQ112", "No tags or broken aliases, and `<<` merges maps", "declare")
NOT_ONE_MAP = _register("FQ113", "A file holds one document, and it is a map", "declare")
BAD_CALL = _register("FQ114", "`call` names a function as package.module:function", "declare")
BLOCKED_BY_NOT_DEFERRED = _register(
    "FQ115", "The target of `blocked_by` has `deferred: true`", "declare"
)
BAD_DEFAULT = _register("FQ116", "An input's default matches its type", "declare")
NOT_ONE_ACTION = _register(
    "FQ117", "A job has exactly one of `call`, `run`, `workflow` and `sleep`", "checks"
)
KEY_OUT_OF_PLACE = _register(
    "FQ118", "A key appears only with the key that it belongs to", "checks", "declare"
)
NO_SUCH_WORKFLOW = _register("FQ119", "A nested workflow exists", "checks", "declare")
WORKFLOW_IN_ITSELF = _register("FQ120", "No workflow contains itself", "declare")
RETRIES_OUT_OF_BOUNDS = _register("FQ125", "The numbers of `retries` are within bounds", "declare")
BAD_RETRY_CAUSE = _register(
    "FQ126", "`on` and `never_on` name exception classes and exit codes", "declare"
)
BAD_LABEL = _register("FQ131", "Labels are few, and short lines of text", "declare", "planner")
BAD_RATE = _register("FQ132", "A rate is so many starts in a time: 10/m", "declare")

# The graph ----------------------------------------------------------------------------------------

UNKNOWN_JOB = _register(
    "FQ201", "Every job in `needs`, `blocks`, `blocked_by` and `else` is declared", "checks"
)
JOB_WAITS_FOR_ITSELF = _register("FQ202", "No job waits for itself", "checks")
CYCLE = _register("FQ203", "The graph has no cycle", "checks")
UNKNOWN_JOB_IN_EXPRESSION = _register("FQ204", "Every job in an expression is declared", "checks")
UNKNOWN_INPUT = _register("FQ205", "Every input in an expression is declared", "checks")
DEFERRED_WITHOUT_BLOCKER = _register(
    "FQ206", "A `deferred: true` job has a blocker that can add more blockers", "checks"
)
TWO_POLICIES = _register("FQ207", "An edge has one policy, even if it is declared twice", "checks")
DECLARED_TWICE = _register("FQ208", "No name is declared twice", "checks", "declare")
BAD_JOB_NAME = _register("FQ209", "A job's name is valid in a job id", "checks")
NO_JOBS = _register("FQ210", "A workflow has at least one job", "checks")
UNUSED_INPUT = _register("FQ211", "Every input is used (a warning)", "checks")
GROUP_OR_SINGLE_JOB = _register(
    "FQ212",
    "A group has `results`, a single job has a `result`, a shell job an `exit_code`",
    "checks",
)
NO_VALUE_HERE = _register(
    "FQ213", "Names in expressions are used only where they have a value", "checks"
)
BAD_MATRIX = _register(
    "FQ214",
    "A matrix has at least one combination, no duplicates, and at most 10,000",
    "checks",
    "planner",
)
EXCLUDE_WITHOUT_AXIS = _register("FQ215", "`exclude` names axes of its matrix", "checks")
UNKNOWN_AXIS = _register("FQ216", "Every `matrix.NAME` in an expression is in the matrix", "checks")
IF_AND_POLICY = _register(
    "FQ217", "A job whose `if` checks how earlier jobs ended has no `on_blocker_failure`", "checks"
)
BAD_NESTED_INPUTS = _register(
    "FQ218", "A nested workflow gets the inputs that it declares", "checks"
)
UNKNOWN_OUTPUT = _register("FQ219", "The outputs of a nested workflow are declared", "checks")
BAD_CRON = _register("FQ220", "A schedule's cron expression is valid", "checks")
UNKNOWN_TIME_ZONE = _register("FQ221", "The time zone of a schedule exists", "checks")
LIMIT_WITHOUT_GROUP = _register(
    "FQ222", "Group limits are set only on groups (a warning)", "checks"
)
UNUSED_WORKFLOW = _register(
    "FQ223", "Every workflow under `workflows` is used (a warning)", "checks"
)
SHELL_WITHOUT_QUOTES = _register(
    "FQ224", "A command with expressions uses a shell that flowq can quote for", "checks"
)
NOTHING_BEFORE = _register(
    "FQ225",
    "Only a job with blockers refers to how they ended (a warning)",
    "checks",
)
NOT_A_LIST = _register("FQ226", "A group is made from a list", "checks")
CONCURRENCY_OF_NESTED = _register(
    "FQ227", "`concurrency` is set on the workflow that is run (a warning)", "checks"
)
VALUE_AS_CODE = _register(
    "FQ228", "An expression in a command is placed where its value cannot become code", "checks"
)
SECRET_IN_ENV = _register(
    "FQ229", "Variables that look like secrets are read as secrets (a warning)", "checks"
)
NOT_IN_APPROVAL = _register(
    "FQ230", "Expressions read only the approval's declared inputs", "checks"
)
FINALLY_OUT_OF_ORDER = _register(
    "FQ232",
    "No edges connect jobs under `finally` with other jobs",
    "checks",
)
SEVERAL_VALUES = _register("FQ235", "An argument of a command is a single value", "checks")
TIMEOUT_TOO_LONG = _register(
    "FQ236", "A job's timeout is not longer than its workflow's (a warning)", "checks"
)
VALUE_AS_PROGRAM = _register(
    "FQ237",
    "The program of a command comes from a list in the workflow (a warning)",
    "checks",
)
SHELL_WORD_IN_LIST = _register(
    "FQ239", "A command list contains no shell syntax (a warning)", "checks"
)
RETRIES_CONTRADICT = _register("FQ240", "Retry settings are consistent (a warning)", "checks")
TEXT_TOO_LONG = _register("FQ241", "Texts for people are not too long", "checks")
BAD_SETTING = _register(
    "FQ242", "The value of a setting's expression is one that its key accepts", "checks", "settings"
)
QUEUE_FROM_RESULT = _register(
    "FQ243", "No result of a job decides on which queue another job runs", "checks"
)
TWO_BRANCHES = _register("FQ244", "A job is the `else` of one job", "checks")
CANCELS_ITS_OWN = _register(
    "FQ245", "The items of a group do not cancel each other to make room (a warning)", "checks"
)
LIMITS_DIFFER = _register(
    "FQ246", "The jobs of a `concurrency` group have the same limit (a warning)", "checks"
)
NOTHING_TO_START_AT = _register(
    "FQ247", "A job with `start_when` has jobs before it, which it need not all wait for", "checks"
)
MAY_BE_MISSING = _register(
    "FQ248", "A job with `start_when` gives the results that may be missing a default", "checks"
)

BAD_SCHEDULE_INPUTS = _register(
    "FQ251", "A schedule gives inputs that the workflow declares", "checks"
)

# Expressions --------------------------------------------------------------------------------------

BAD_EXPRESSION = _register("FQ301", "An expression is well formed", "expressions")
UNKNOWN_NAME = _register(
    "FQ302", "The names, functions and filters in an expression are known", "checks", "expressions"
)
INCOMPLETE_NAME = _register(
    "FQ303",
    "Inputs and jobs are named in full: inputs.NAME, jobs.NAME.result",
    "checks",
    "expressions",
)
BAD_VALUE = _register("FQ305", "Values fit the operations of the expression", "expressions")
EXPRESSION_TOO_LARGE = _register(
    "FQ306", "An expression is within the limits on time and size", "expressions"
)
UNKNOWN_STATUS = _register(
    "FQ307", "A job's status is compared with an existing status", "expressions"
)

# The inputs of a run ------------------------------------------------------------------------------

UNDECLARED_INPUT = _register("FQ401", "Only declared inputs are given", "inputs")
MISSING_INPUT = _register("FQ402", "Every required input is given", "inputs")
BAD_INPUT = _register("FQ403", "An input's value matches its type", "inputs")

# The functions ------------------------------------------------------------------------------------

CANNOT_IMPORT = _register("FQ501", "Every function can be imported", "checks")
NOT_A_FUNCTION = _register("FQ502", "`call` names a function", "checks")
UNKNOWN_ARGUMENT = _register(
    "FQ503", "A function accepts the arguments that are passed to it", "checks"
)
MISSING_ARGUMENT = _register("FQ504", "A function gets the arguments that it requires", "checks")
ARGUMENT_BY_POSITION = _register("FQ505", "A function accepts its arguments by name", "checks")
GENERATOR = _register("FQ506", "A called function runs when it is called", "checks")
NOT_AN_EXCEPTION = _register(
    "FQ507", "`on` and `never_on` name exception classes by the module that defines them", "checks"
)

# Only in Python -----------------------------------------------------------------------------------

NOT_IMPORTABLE = _register("FQ601", "Workers can import the function of a job", "declare")
ARGUMENT_TWICE = _register("FQ602", "An argument is given once", "declare")

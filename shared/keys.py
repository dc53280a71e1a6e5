"""The one register of Redis keys. The Lua scripts build the same names from the prefix (`lua/_common.lua`)."""


class Keys:
    """Names under one fleet's prefix.

    | key | type | what |
    |---|---|---|
    | b:ID | hash | a batch: spec, version, status, times, counts, cursor, tokens |
    | b:ID:st | string | one byte a job: how it stands (`jobs.PENDING` ...) |
    | b:ID:ix | string | eight bytes a job: offset and length of its line |
    | b:ID:at | hash | job -> its history, only for jobs that failed before |
    | b:ID:ta | hash | `provider|field` -> what each provider did |
    | b:ID:ru | string | one bit a segment: rolled up |
    | b:ID:r:SEG | hash | job -> its result line, until the segment is rolled up |
    | b:ID:s:N, b:ID:sh | hash, set | a shard, and the numbers of those that exist |
    | bs:OWNER | zset | the owner's batches, by id |
    | active | list | batches with jobs not yet cut into shards, in turn |
    | ready | list | shards waiting to be hinted at |
    | suspects | zset | shards and lone jobs whose workers died (shared/suspects.py), by the time from which on they may run |
    | lane | string | the one of them that is out, or was the last |
    | lane:holder | string | the worker that claimed it |
    | death:WORKER, deaths | string | its death has been counted, for an hour; how many have died that had no suspect |
    | left:WORKER | string | it has said goodbye: its jobs are not blamed for its end; for an hour |
    | hints, leases, later | zset | shards by the time at which the reaper must look at them |
    | turn | int | picks by `feed` so far: an odd one prefers what came back, an even one fresh jobs |
    | load | int | jobs in hinted and leased shards |
    | capacity | int | jobs the workers alive want at once |
    | chores | zset | batches with leased work, by the time it is due |
    | windows, closing | zset | batches by deadline, and by the end of their grace |
    | alive, workers | zset, hash | heartbeats |
    | reads | zset | worker -> the newest version of records that it can run (`shared.versions`) |
    | apis | hash | heartbeats of the API processes; it expires with the last of them |
    | served | hash | provider -> when the latest call began that it answered |
    | answer | string | the average bytes of an answer |
    | leader | string | the process that reaps |
    | reaped, lone:reaped | hash | its last round, and until when rounds leave leases alone |
    | wr:WRITER | hash | the last `finish` of a writer and its answer |
    | f:ID, f:ID:c, f:ID:p | string, hash, zset | a file's record, its chunks, the batches that need it |
    | j:ID | hash | a lone job: spec, version, body, status, times, who waits, its result line |
    | js:OWNER | zset | the owner's lone jobs, by id |
    | same:OWNER:FINGERPRINT | set | lone jobs of the same content, for requests that are repeated |
    | once:OWNER:NAME | string | fingerprint and id of what was made under an idempotency key |
    | lone:now, lone:soon | list | lone jobs to be claimed: those whose callers wait, and the others |
    | lone:later, lone:leases | zset | lone jobs by due time, and by lease |
    | lone:ends, lone:kept | zset | lone jobs that are open by the end of their window, and the others by that of their retention |
    | lone:newer, lone:looked | zset, string | lone jobs of a newer release, by version; until when nobody need look for a worker of that |
    | lone:c:TOKEN | list | the jobs of one claim |
    | lone:hinted, lone:token | string | until when a hint counts as outstanding; the claims so far |
    | replies:PROCESS | channel | how jobs ended, for the API process whose callers wait |
    | fs:OWNER | zset | the owner's files, by id |
    | pv:PROVIDER | string | a provider's condition: breakers, health, what keeps it out of service |
    | sk:PROVIDER:SLOT | hash | its calls in one slot of time: how they ended, and the sketch of their durations |
    | lm:KIND:SCOPE | string | a counter of rpm, tpm (when the bucket is full again) or money (nano-dollars reserved and spent) |
    | fl:SCOPE | hash | sender -> its calls in flight under a limit of concurrency, and when it was heard of |
    | gs:SENDER | hash | the last exchange of a worker with the gate and its answer; the scopes where it had calls in flight |
    | woken:PROVIDER | string | when what waits for it was last brought back, for a minute |
    | wait:PROVIDER | zset | parked shards and lone jobs that it could serve, by due time; `wait:` of those that no provider serves |
    """

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix

    def batch(self, batch_id: str) -> str:
        return f"{self.prefix}:b:{batch_id}"

    def tallies(self, batch_id: str) -> str:
        return f"{self.prefix}:b:{batch_id}:ta"

    def states(self, batch_id: str) -> str:
        return f"{self.prefix}:b:{batch_id}:st"

    def histories(self, batch_id: str) -> str:
        return f"{self.prefix}:b:{batch_id}:at"

    def index(self, batch_id: str) -> str:
        return f"{self.prefix}:b:{batch_id}:ix"

    def rolled(self, batch_id: str) -> str:
        return f"{self.prefix}:b:{batch_id}:ru"

    def results(self, batch_id: str, segment: int) -> str:
        return f"{self.prefix}:b:{batch_id}:r:{segment}"

    def batches(self, owner: str) -> str:
        return f"{self.prefix}:bs:{owner}"

    def file(self, file_id: str) -> str:
        return f"{self.prefix}:f:{file_id}"

    def chunks(self, file_id: str) -> str:
        return f"{self.prefix}:f:{file_id}:c"

    def files(self, owner: str) -> str:
        return f"{self.prefix}:fs:{owner}"

    def job(self, job_id: str) -> str:
        return f"{self.prefix}:j:{job_id}"

    def jobs(self, owner: str) -> str:
        return f"{self.prefix}:js:{owner}"

    def once(self, owner: str, name: str) -> str:
        return f"{self.prefix}:once:{owner}:{name}"

    def replies(self, process: str) -> str:
        return f"{self.prefix}:replies:{process}"

    def provider(self, provider_id: str) -> str:
        return f"{self.prefix}:pv:{provider_id}"

    def sketch(self, provider_id: str, slot: int) -> str:
        return f"{self.prefix}:sk:{provider_id}:{slot}"

    def flight(self, scope: str) -> str:
        return f"{self.prefix}:fl:{scope}"

    def counter(self, kind: str, scope: str) -> str:
        return f"{self.prefix}:lm:{kind}:{scope}"

    @property
    def hinted(self) -> str:
        return f"{self.prefix}:lone:hinted"

    @property
    def suspects(self) -> str:
        return f"{self.prefix}:suspects"

    @property
    def workers(self) -> str:
        return f"{self.prefix}:workers"

    @property
    def alive(self) -> str:
        return f"{self.prefix}:alive"

    @property
    def apis(self) -> str:
        return f"{self.prefix}:apis"

    @property
    def probe(self) -> str:
        return f"{self.prefix}:probe"

import { inSpan, tell } from '../diagnostics.js';
import {
  AmbiguousGrantError,
  DomainError,
  GrantNotFoundError,
  InvalidInputError,
  MissingScopesError,
  ProviderUnavailableError,
  ReauthorizationRequiredError,
} from '../errors.js';
import type { GrantKind, HealthReason } from '../generated/prisma/enums.js';
import type { Secret } from '../secret.js';
import type { Deps } from './deps.js';
import type { Candidate, CandidateReader } from './credential-reader.js';
import { credentialPlace } from './grant.js';
import { isLive } from './health.js';
import type { RefreshOutcome, Refresher } from './refresh.js';
import { missingScopes } from './scope.js';

/** Longest a token must stay valid on demand: a little below the life the provider gives it. */
const MAX_MIN_TTL_SECONDS = 3_000;
/** A token is renewed to meet `minTtlSeconds` while that leaves this share of its life in which it is not. */
const REACHABLE_LIFE_SHARE = 0.9;
/** A token this close to its end is not handed out. */
const EXPIRY_CUT_SECONDS = 1;
/** How long a caller waits for a refresh that another process is at. */
const PATIENCE_MS = 20_000;
const FIRST_POLL_MS = 25;
/** Whoever waits here is up to so much later than who refreshes; all readers of a process share one look. */
const LONGEST_POLL_MS = 100;

export interface CredentialQuery {
  tenantId: string;
  userId: string | null;
  kind: GrantKind;
  grantId: string | null;
  minTtlSeconds: number;
  requiredScopes: readonly string[];
}

/** A usable access token and what it may be used for. */
export interface Credential {
  grantId: string;
  /** The tenant's row. */
  tenantId: string;
  accessToken: Secret;
  expiresAt: Date;
  scopes: string[];
  /** Origin of the REST host, without a path. */
  apiUrl: string;
  version: number;
  /** Set when the last refresh did not succeed. */
  warning: HealthReason | null;
}

export interface CredentialDeps extends Deps {
  refresher: Refresher;
  candidates: CandidateReader;
  renewals: Renewals;
}

interface Renewed {
  candidate: Candidate;
  outcome: RefreshOutcome | null;
}

/** What this process's callers wait for, by grant and version: all who want the same thing share one wait. */
export type Renewals = Map<string, Promise<Renewed>>;

const ZERO_CHARACTER = 'No identifier holds a zero character.';

function checkQuery(query: CredentialQuery): void {
  const { kind, tenantId, userId, minTtlSeconds } = query;
  // No stored id holds it; sent on, it would fail every read that shares the statement.
  if (tenantId.includes('\0')) throw new InvalidInputError(ZERO_CHARACTER, ['input', 'tenantId']);
  if (userId?.includes('\0')) throw new InvalidInputError(ZERO_CHARACTER, ['input', 'userId']);
  if (kind === 'USER_CONNECTION' && userId === null) {
    throw new InvalidInputError('Name the user whose credential is wanted.', ['input', 'userId']);
  }
  if (minTtlSeconds < 0 || minTtlSeconds > MAX_MIN_TTL_SECONDS) {
    throw new InvalidInputError(`Give 0 to ${MAX_MIN_TTL_SECONDS} seconds.`, ['input', 'minTtlSeconds']);
  }
}

/** The only live grant, else the one that ended last. */
function choose(candidates: readonly Candidate[]): Candidate {
  const live = candidates.filter((candidate) => isLive(candidate.healthStatus));
  if (live.length > 1) throw new AmbiguousGrantError(live.map(({ grantId }) => grantId));
  const [chosen] = live.length === 1 ? live : candidates;
  if (chosen === undefined) throw new GrantNotFoundError();
  return chosen;
}

/** Whether the token can be handed out at all. */
const isUsable = (candidate: Candidate) => candidate.version !== null && candidate.ttlSeconds > EXPIRY_CUT_SECONDS;

/**
 * Whether it stays valid as long as the caller needs. Where a refresh has shown that the provider gives no token that
 * long a life, half of its life has to do: it would otherwise be renewed at every read.
 */
const lastsLongEnough = ({ ttlSeconds, lifeSeconds, isRenewed }: Candidate, minTtlSeconds: number) =>
  ttlSeconds >= minTtlSeconds ||
  (isRenewed && minTtlSeconds > lifeSeconds * REACHABLE_LIFE_SHARE && ttlSeconds >= lifeSeconds / 2);

/** A rotation that was lost does not take the token before it back. */
const isServed = (candidate: Candidate) =>
  isLive(candidate.healthStatus) || (candidate.healthReason === 'ROTATION_LOST' && isUsable(candidate));

/**
 * A valid access token, now. The stored one while it lasts; otherwise it is refreshed, together with everyone else who
 * asks. A refresh that fails never withholds a token that is still valid: it only adds a warning.
 *
 * @throws {GrantNotFoundError} there never was such a grant.
 * @throws {AmbiguousGrantError} several live ones match.
 * @throws {ReauthorizationRequiredError} the grant has ended.
 * @throws {MissingScopesError} it lacks what `requiredScopes` names.
 * @throws {ProviderUnavailableError} the token has expired and cannot be renewed at the moment.
 */
export const readCredential = (deps: CredentialDeps, query: CredentialQuery): Promise<Credential> =>
  Promise.resolve(inSpan('credential', () => readCounted(deps, query)));

/** Tells whoever counts. */
async function readCounted(deps: CredentialDeps, query: CredentialQuery): Promise<Credential> {
  try {
    const credential = await findCredential(deps, query);
    tell({ kind: 'credential', outcome: credential.warning === null ? 'served' : 'served_with_warning' });
    return credential;
  } catch (error) {
    tell({ kind: 'credential', outcome: error instanceof DomainError ? error.name : 'failed' });
    throw error;
  }
}

async function findCredential(deps: CredentialDeps, query: CredentialQuery): Promise<Credential> {
  checkQuery(query);
  let candidate = choose(await deps.candidates.find(query));
  let outcome: RefreshOutcome | null = null;
  if (
    isServed(candidate) &&
    isLive(candidate.healthStatus) &&
    !(isUsable(candidate) && lastsLongEnough(candidate, query.minTtlSeconds))
  ) {
    ({ candidate, outcome } = await renew(deps, query, candidate));
  }
  if (!isServed(candidate)) throw new ReauthorizationRequiredError(candidate.grantId, candidate.healthReason);
  const missing = missingScopes(query.requiredScopes, candidate.scopes);
  if (missing.length > 0) throw new MissingScopesError(candidate.grantId, missing);
  if (!isUsable(candidate) || candidate.version === null) throw unavailable(candidate, outcome);
  const { grantId, tenantId, version } = candidate;
  const place = credentialPlace({ id: grantId, tenantId }, 'sealed_access_token', version);
  return {
    grantId,
    tenantId,
    accessToken: await deps.vault.open(deps.db, place, candidate.sealedAccessToken),
    expiresAt: candidate.expiresAt,
    scopes: candidate.scopes,
    apiUrl: candidate.apiUrl,
    version,
    warning: candidate.healthReason === 'ROTATION_LOST' ? 'ROTATION_LOST' : warningOf(candidate, outcome),
  };
}

function unavailable(candidate: Candidate, outcome: RefreshOutcome | null): ProviderUnavailableError {
  if (outcome?.kind === 'failed') return new ProviderUnavailableError(outcome.reason, outcome.retryAfterSeconds);
  return new ProviderUnavailableError(
    candidate.failureReason ?? 'PROVIDER_UNAVAILABLE',
    Math.max(1, candidate.retryAfterSeconds ?? 1),
  );
}

const warningOf = (candidate: Candidate, outcome: RefreshOutcome | null): HealthReason | null =>
  candidate.failureReason ?? (outcome?.kind === 'failed' ? outcome.reason : null);

/** A failure of ours, such as a database that takes no writes, does not withhold a token that is still valid either. */
async function attempt(deps: CredentialDeps, candidate: Candidate, version: number): Promise<RefreshOutcome> {
  try {
    return await deps.refresher.refresh({ grantId: candidate.grantId, tenantId: candidate.tenantId, version });
  } catch (error) {
    if (!isUsable(candidate)) throw error;
    return { kind: 'failed', reason: 'PROVIDER_UNAVAILABLE', retryAfterSeconds: 1 };
  }
}

/** As `renewAlone`, together with everyone in this process who has seen the same version. */
function renew(deps: CredentialDeps, query: CredentialQuery, seen: Candidate): Promise<Renewed> {
  const key = `${seen.grantId}/${seen.version}`;
  let renewed = deps.renewals.get(key);
  if (renewed === undefined) {
    renewed = renewAlone(deps, query, seen).finally(() => deps.renewals.delete(key));
    deps.renewals.set(key, renewed);
  }
  return renewed;
}

/** Refreshes, or waits for whoever does, until the row has something new to say. */
async function renewAlone(deps: CredentialDeps, query: CredentialQuery, seen: Candidate): Promise<Renewed> {
  const one = { ...query, grantId: seen.grantId };
  const deadline = deps.clock.now().getTime() + PATIENCE_MS;
  let candidate = seen;
  for (let poll = FIRST_POLL_MS; ; poll = Math.min(poll * 2, LONGEST_POLL_MS)) {
    if (candidate.version === null) return { candidate, outcome: null };
    const outcome = await attempt(deps, candidate, candidate.version);
    const [fresh] = await deps.candidates.find(one);
    if (fresh === undefined) throw new GrantNotFoundError();
    const settled =
      outcome.kind !== 'elsewhere' ||
      fresh.version !== candidate.version ||
      !isLive(fresh.healthStatus) ||
      // Waiting before the next try: nobody is at it.
      (fresh.retryAfterSeconds ?? 0) > 0;
    candidate = fresh;
    // A token that is still good is not held back for one that somebody else is fetching.
    if (settled || isUsable(fresh) || deps.clock.now().getTime() >= deadline) return { candidate, outcome };
    await deps.clock.sleep(poll);
  }
}

import type { AuthorizationFailure, HealthReason } from './generated/prisma/enums.js';

/**
 * An outcome that the caller can act on. Each subclass is a member of the result union of the fields that can have it.
 * Messages are fixed English, at most with our own identifiers; nothing that a browser or Zoom sent is repeated in one.
 */
export abstract class DomainError extends Error {
  constructor(message: string) {
    super(message);
    this.name = this.constructor.name;
  }
}

/** There is no such thing, or none the caller may see: both are the same answer. */
export class NotFoundError extends DomainError {}

export class AlreadyExistsError extends DomainError {}

/** An argument breaks a rule. `path` leads to it from the field's arguments: `['input', 'returnTo']`. */
export class InvalidInputError extends DomainError {
  readonly path: readonly string[];

  constructor(message: string, path: readonly string[]) {
    super(message);
    this.path = path;
  }
}

export interface UnknownScope {
  name: string;
  problem: 'NOT_IN_CATALOGUE' | 'WRONG_LEVEL_FOR_APP_KIND';
  suggestions: readonly string[];
}

export class UnknownScopesError extends DomainError {
  readonly scopes: readonly UnknownScope[];

  constructor(scopes: readonly UnknownScope[]) {
    super('Zoom has no such scopes for an app of this kind.');
    this.scopes = scopes;
  }
}

/** The app still has grants that are in use. */
export class ProviderAppInUseError extends DomainError {
  readonly liveGrants: number;

  constructor(liveGrants: number) {
    super('The app still has connections; revoke them first.');
    this.liveGrants = liveGrants;
  }
}

/** A tenant has as many open authorization sessions as it may have. */
export class LimitExceededError extends DomainError {
  readonly retryAfterSeconds: number;

  constructor(message: string, retryAfterSeconds: number) {
    super(message);
    this.retryAfterSeconds = retryAfterSeconds;
  }
}

/** There never was a grant that matches. */
export class GrantNotFoundError extends DomainError {
  constructor() {
    super('No such connection exists.');
  }
}

export class AmbiguousGrantError extends DomainError {
  readonly candidateIds: readonly string[];

  constructor(candidateIds: readonly string[]) {
    super('Several connections match; name one by grantId.');
    this.candidateIds = candidateIds;
  }
}

/** Only a person going through consent again can repair the grant. */
export class ReauthorizationRequiredError extends DomainError {
  readonly grantId: string;
  readonly reason: HealthReason;

  constructor(grantId: string, reason: HealthReason) {
    super('The connection has ended and must be authorized again.');
    this.grantId = grantId;
    this.reason = reason;
  }
}

export class MissingScopesError extends DomainError {
  readonly grantId: string;
  readonly missingScopes: readonly string[];

  constructor(grantId: string, missingScopes: readonly string[]) {
    super('The connection lacks scopes that are required here.');
    this.grantId = grantId;
    this.missingScopes = missingScopes;
  }
}

/** The provider cannot be asked now and no stored token serves; waiting helps. */
export class ProviderUnavailableError extends DomainError {
  readonly reason: HealthReason;
  readonly retryAfterSeconds: number;

  constructor(
    reason: HealthReason,
    retryAfterSeconds: number,
    message = 'Zoom cannot renew the token right now; try again later.',
  ) {
    super(message);
    this.reason = reason;
    this.retryAfterSeconds = retryAfterSeconds;
  }
}

/** The provider understood the request and refused it: wrong account id, app not activated, recording switched off. */
export class RefusedByProviderError extends DomainError {
  /** The provider's own number for it, as text. */
  readonly providerCode: string | null;

  constructor(message = 'Zoom refused the request for this app and account.', providerCode: string | null = null) {
    super(message);
    this.providerCode = providerCode;
  }
}

/** The tokens work, but whom they speak for may not be connected here; a consent trip fails for the same reason. */
export class GrantRefusedError extends DomainError {
  readonly failure: AuthorizationFailure;

  constructor(failure: AuthorizationFailure) {
    super('The tokens speak for a Zoom user who may not be connected here.');
    this.failure = failure;
  }
}

/** No grant that the caller may use reaches such a meeting, or the provider has none of this number. */
export class MeetingNotFoundError extends DomainError {
  constructor() {
    super('No such meeting is known.');
  }
}

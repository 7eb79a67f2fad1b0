/** What Zoom's answer, or its absence, means for the caller. Messages are ours; no answer's text is ever in one. */
export abstract class ZoomError extends Error {
  constructor(message: string) {
    super(message);
    this.name = this.constructor.name;
  }
}

/** Why Zoom no longer honours a grant. */
export type GrantRejection = 'REJECTED' | 'EXPIRED' | 'USER_REMOVED' | 'DISABLED_BY_ADMIN' | 'SUPERSEDED';

/** `invalid_grant` and its older forms: the refresh token or code is dead. Final for this token. */
export class ZoomGrantInvalidError extends ZoomError {
  readonly rejection: GrantRejection;

  constructor(rejection: GrantRejection) {
    super('Zoom does not accept the grant');
    this.rejection = rejection;
  }
}

/** `invalid_client`, or the app is disabled: the app's own credentials were refused. Says nothing about the grant. */
export class ZoomClientRejectedError extends ZoomError {
  constructor() {
    super('Zoom does not accept the client id or secret');
  }
}

/** HTTP 429. Nothing was changed at Zoom. */
export class ZoomRateLimitedError extends ZoomError {
  /** What `Retry-After` says, at most 3 600; null if it says nothing that can be read. */
  readonly retryAfterSeconds: number | null;

  constructor(retryAfterSeconds: number | null) {
    super('Zoom asks to slow down');
    this.retryAfterSeconds = retryAfterSeconds;
  }
}

/** Zoom answered that it cannot serve now (408, 5xx), or did not answer. */
export class ZoomUnavailableError extends ZoomError {
  /**
   * How far the request came: `not-sent` may be repeated freely; `unanswered` may have been carried out by Zoom;
   * `answered` was refused by Zoom's own failure answer.
   */
  readonly stage: 'not-sent' | 'unanswered' | 'answered';
  readonly retryAfterSeconds: number | null;

  constructor(stage: 'not-sent' | 'unanswered' | 'answered', retryAfterSeconds: number | null = null) {
    super('Zoom is unavailable');
    this.stage = stage;
    this.retryAfterSeconds = retryAfterSeconds;
  }
}

/** A 2xx answer that is not what the protocol promises, or a redirect. Zoom may have carried out the request. */
export class ZoomResponseInvalidError extends ZoomError {
  /** Which rule of ours it broke, in our words: `not JSON`, `access_token missing`. */
  readonly rule: string;

  constructor(rule: string) {
    super('Zoom answered in a form that is not understood');
    this.rule = rule;
  }
}

/** A 4xx answer with none of the meanings above: the request is wrong for this app or account. */
export class ZoomRequestRefusedError extends ZoomError {
  readonly status: number;
  /** Zoom's own number for the refusal; null if it gave none. */
  readonly code: number | null;

  constructor(status: number, code: number | null = null) {
    super('Zoom refused the request');
    this.status = status;
    this.code = code;
  }
}

/** Zoom has no such meeting, or none that the token may see: it does not tell the two apart (code 3001, or 300). */
export class ZoomMeetingUnknownError extends ZoomError {
  constructor() {
    super('Zoom does not know the meeting');
  }
}

/** The REST API does not accept the access token (HTTP 401, code 124). */
export class ZoomAccessTokenRejectedError extends ZoomError {
  constructor() {
    super('Zoom does not accept the access token');
  }
}

/** The access token lacks a scope for this call (code 4711). */
export class ZoomScopeMissingError extends ZoomError {
  constructor() {
    super('The access token lacks a scope');
  }
}

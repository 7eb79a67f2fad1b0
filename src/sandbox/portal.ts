import type { Control, GrantView } from './control.js';
import { ControlError } from './control-error.js';
import { requireLocal } from './control-http.js';
import { formOf, json, redirect, type Reply, type SandboxRequest } from './http.js';
import type { App, User } from './model.js';
import { type Markup, markup, page } from './pages.js';

const list = (values: string[]): Markup[] => values.map((value) => markup`<code>${value}</code><br>`);

function appRow(app: App): Markup {
  const canAdd = app.usage !== 'SERVER_TO_SERVER' && app.redirectUris.length > 0;
  const notes = [app.usage, ...(app.published ? ['published'] : []), ...(app.disabled ? ['disabled'] : [])];
  const add = markup`<form method="get" action="/marketplace/apps/${app.clientId}/add"><button>Add</button></form>`;
  return markup`
<tr><td>${app.name}<br><span class="note">${notes.join(', ')}</span></td>
<td>Client ID <code>${app.clientId}</code>
<details><summary>Secrets and URLs</summary>
Client secret <code>${app.clientSecret}</code><br>
Webhook secret <code>${app.webhookSecret}</code><br>
Account ID <code>${app.accountId}</code><br>
Webhook URL <code>${app.webhookUrl ?? 'none'}</code><br>
Redirect URIs<br>${list(app.redirectUris)}</details></td>
<td>${canAdd ? add : ''}</td></tr>`;
}

const grantRow = ({ clientId, userId, scopes }: GrantView, names: { app: string; user: string }): Markup => markup`
<tr><td>${names.app}</td><td>${names.user}</td><td>${list(scopes)}</td>
<td><form method="post" action="/marketplace/remove"><input type="hidden" name="clientId" value="${clientId}">
<input type="hidden" name="userId" value="${userId}"><button>Remove app</button></form></td></tr>`;

const userRow = ({ id, displayName, email, role, removed }: User, account: string): Markup => markup`
<tr><td>${displayName}<br><span class="note">${email}</span></td>
<td>${role}, ${account}${removed ? ' (deleted)' : ''}</td><td><code>${id}</code></td></tr>`;

/** `GET /`: apps, grants and users of the sandbox, with the buttons a person has at the Zoom Marketplace. */
export function handlePortal(control: Control, request: SandboxRequest): Reply {
  requireLocal(request);
  const accounts = new Map(control.accounts().map(({ id, name }) => [id, name]));
  const userNames = new Map(control.users().map(({ id, displayName }) => [id, displayName]));
  const appNames = new Map(control.apps().map(({ clientId, name }) => [clientId, name]));
  const apps = control.apps().map(appRow);
  const users = control.users().map((user) => userRow(user, accounts.get(user.accountId) ?? 'an unknown account'));
  const grants = control.grants().map((grant) =>
    grantRow(grant, {
      app: appNames.get(grant.clientId) ?? grant.clientId,
      user: userNames.get(grant.userId) ?? grant.userId,
    }),
  );
  const body = markup`<p>A stand-in for Zoom's authorization server, REST API and webhooks, for trying things without a
Zoom account. Apps are created with <code>POST /_sandbox/apps</code>. Add starts an install as the Marketplace does: the
app's callback gets a code and no state.</p>
<h2>Apps</h2>${apps.length === 0 ? markup`<p>No app yet.</p>` : markup`<table>${apps}</table>`}
<h2>Live grants</h2>${grants.length === 0 ? markup`<p>Nobody has added an app.</p>` : markup`<table>${grants}</table>`}
<h2>Users</h2><table>${users}</table>`;
  return page(200, { title: 'Zoom sandbox', body, outcome: 'portal' });
}

/** `POST /marketplace/remove`: the portal's Remove button. */
export function handleRemove(control: Control, request: SandboxRequest): Reply {
  requireLocal(request);
  const form = formOf(request);
  try {
    control.removeGrant({ clientId: form.get('clientId') ?? '', userId: form.get('userId') ?? '' });
  } catch (error) {
    // Two clicks on one button: the second finds nothing left to do.
    if (!(error instanceof ControlError)) throw error;
    return json(error.status, { error: error.message }, 'refused');
  }
  return redirect('/', 'removed', 303);
}

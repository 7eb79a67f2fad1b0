import type { AuthorizeRequest } from './authorize-request.js';
import type { Reply } from './http.js';
import { isAdmin, type User } from './model.js';
import { hiddenFields, type Markup, markup, page } from './pages.js';
import type { World } from './world.js';

/** Everyone at the sandbox. Those whom Zoom would refuse come last; they can be picked, so that the refusal is seen. */
function userChoice(world: World, request: AuthorizeRequest, picked: User | null): Markup {
  const mayAuthorize = (user: User): boolean => request.app.usage !== 'ADMIN_MANAGEMENT' || isAdmin(user);
  const users = [...world.state.users.values()]
    .filter((user) => !user.removed)
    .sort((left, right) => Number(mayAuthorize(right)) - Number(mayAuthorize(left)));
  const checked = picked ?? users[0];
  const labels = users.map((user) => {
    const account = world.state.accounts.get(user.accountId)?.name ?? 'an unknown account';
    const note = mayAuthorize(user) ? '' : ' (not an admin: will be refused)';
    const mark = user.id === checked?.id ? ' checked' : '';
    const label = `${user.displayName}, ${user.role} at ${account}${note}`;
    return markup`
<label><input type="radio" name="sandbox_user" value="${user.id}"${mark}> ${label}</label>`;
  });
  return markup`<fieldset><legend>Sign in as</legend>${labels}</fieldset>`;
}

function scopeChoice({ required, optional }: AuthorizeRequest): Markup {
  const fixed = required.map(
    (scope) => markup`
<label><input type="checkbox" checked disabled> <code>${scope}</code></label>`,
  );
  const free = optional.map(
    (scope) => markup`
<label><input type="checkbox" name="ticked_scope" value="${scope}" checked> <code>${scope}</code> (optional)</label>`,
  );
  return markup`<fieldset><legend>The app asks for</legend>${fixed}${free}</fieldset>`;
}

/** User picker, optional scopes, Allow and Deny on one page. */
export function consentPage(world: World, request: AuthorizeRequest, picked: User | null): Reply {
  const body = markup`<form method="post" action="/oauth/authorize/decision">
${hiddenFields(request.params)}
${userChoice(world, request, picked)}
${scopeChoice(request)}
<button class="main" name="decision" value="allow">Allow</button> <button name="decision" value="deny">Deny</button>
</form>`;
  return page(200, { title: `Authorize ${request.app.name}`, body, outcome: 'consent-page' });
}

/** User picker alone, for when a user who granted before is to be spared the consent page. */
export function pickerPage(world: World, request: AuthorizeRequest): Reply {
  const body = markup`<form method="get" action="/oauth/authorize">
${hiddenFields(request.params)}
${userChoice(world, request, null)}
<button class="main">Continue</button>
</form>`;
  return page(200, { title: 'Sign in', body, outcome: 'picker-page' });
}

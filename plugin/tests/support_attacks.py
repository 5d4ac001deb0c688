"""What pages of a student's server try on the hub, as scripts: bodies of asynchronous functions of ``v``."""

from __future__ import annotations

import json
import re

# What the scripts use.
TOOLS = """
const sleep = time => new Promise(resolve => setTimeout(resolve, time));
// The content of a window, once it is at the hub's page; or why there is none.
const read = async find => {
  let held = null;
  for (let i = 0; i < 200; i++) {
    const lost = held && held.closed;
    try {
      held = find();
      if (held && held.location.pathname === '/hub/token' && held.document.readyState === 'complete') {
        return held.document.documentElement.outerHTML;
      }
    } catch (error) { return String(error) }
    if (!held || lost) return 'lost';
    await sleep(50);
  }
  return 'late';
};
const add = (name, values) => {
  const element = document.createElement(name);
  Object.assign(element, values);
  document.head.append(element);
  return element;
};
const click = values => add('a', values).click();
"""
# A page that opens another one, lets it keep its opener, and moves on to the hub's; the other one looks.
LOOKS = f"{TOOLS} read(() => opener).then(found => new BroadcastChannel('kept').postMessage(found))"


def keeper(looks: str) -> str:
    """The page that moves on; ``looks`` is the path of the one that looks."""
    return f"{TOOLS} click({{target: '_blank', rel: 'opener', href: {json.dumps(looks)}}}); location = '/hub/token'"


def together(scripts: dict[str, str]) -> str:
    """A script that plays these one after the other; returns what each got hold of, by name."""
    acts = ",".join(f"{json.dumps(name)}: async () => {{ {script} }}" for name, script in scripts.items())
    return f"""
        const found = {{}}, here = location.href, late = () => sleep(20000).then(() => 'late');
        for (const [name, act] of Object.entries({{ {acts} }})) {{
          try {{ found[name] = String(await Promise.race([act(), late()])) }}
          catch (error) {{ found[name] = String(error) }}
          if (location.href !== here) history.replaceState({{}}, '', here);
        }}
        return found"""


# What is in pages and answers, and nobody else's page may see.
SECRET = re.compile(r'xsrf_token: "[^"]|name="_xsrf" value="[^"]|name="xsrf" content="[^"]|_xsrf=|"last_activity"')

# Scripts that return whatever they can get hold of.
READ = {
    "fetch": "return await (await fetch('/hub/token')).text()",
    "fetch with the referrer of a page of the hub": """
        return await (await fetch('/hub/token', {referrer: '/hub/home', referrerPolicy: 'unsafe-url'})).text()""",
    "fetch of the login page": "return await (await fetch('/hub/login')).text()",
    "fetch without cookies": "return await (await fetch('/hub/login', {credentials: 'omit'})).text()",
    "fetch of an error": "return await (await fetch('/hub/no-such-page')).text()",
    "fetch of an error of the OAuth pages": """
        return await (await fetch('/hub/api/oauth2/authorize?client_id=x', {headers: {'X-XSRFToken': 'x'}})).text()""",
    "fetch by way of a redirect": "return await (await fetch(v.redirect)).text()",
    "fetch of the API, which JupyterHub takes for a picture": """
        return await (await fetch('/hub/api/users', {mode: 'no-cors'})).text()""",
    "XMLHttpRequest": """
        return await new Promise(resolve => {
          const asked = new XMLHttpRequest();
          asked.open('GET', '/hub/home');
          asked.onloadend = () => resolve(asked.responseText);
          asked.send();
        })""",
    "the cache": """
        return await (await fetch('/hub/home', {cache: 'force-cache'})).text()""",
    "a window": """
        const opened = open('/hub/token');
        return await read(() => opened)""",
    "a window that gets there by itself": """
        const opened = open(location.href);
        await new Promise(resolve => { opened.onload = resolve });
        opened.location = '/hub/token';
        return await read(() => opened)""",
    "a link of another target": """
        click({target: 'linked', href: '/hub/token'});
        return await read(() => open('', 'linked'))""",
    "a target of all links": """
        const base = document.createElement('base');
        base.target = 'based';
        document.head.append(base);
        click({href: '/hub/token'});
        base.remove();
        return await read(() => open('', 'based'))""",
    "a form of another target": """
        const form = document.createElement('form');
        Object.assign(form, {target: 'sent', action: '/hub/token'});
        document.body.append(form);
        form.submit();
        return await read(() => open('', 'sent'))""",
    "the opener that a link keeps": """
        const told = new Promise(resolve => { new BroadcastChannel('kept').onmessage = event => resolve(event.data) });
        open(v.keeper, '_blank', 'noopener');
        return await told""",
    "a blob": """
        const blob = await (await fetch('/hub/token')).blob();
        return await new Promise(resolve => {
          const reader = new FileReader();
          reader.onload = () => resolve(reader.result);
          reader.readAsText(blob);
        })""",
    "a page in a blob": """
        const frame = document.createElement('iframe');
        frame.src = URL.createObjectURL(new Blob(['<!DOCTYPE html>'], {type: 'text/html'}));
        document.body.append(frame);
        await new Promise(resolve => { frame.onload = resolve });
        return await (await frame.contentWindow.fetch(`${location.origin}/hub/token`)).text()""",
    "a worker": """
        const get = `fetch('${location.origin}/hub/token')`;
        const source = `${get}.then(answer => answer.text()).then(postMessage, postMessage)`;
        const worker = new Worker(URL.createObjectURL(new Blob([source])));
        return await new Promise(resolve => { worker.onmessage = event => resolve(event.data) })""",
}
# What JupyterHub or the browser refuses as it is, and is to go on refusing; headers of the student's own may help.
NEVER = {
    "a frame": """
        return await new Promise(resolve => {
          const frame = document.createElement('iframe');
          frame.src = '/hub/token';
          frame.onload = () => { try { resolve(frame.contentDocument.documentElement.outerHTML) }
                                 catch (error) { resolve(String(error)) } };
          document.documentElement.append(frame);
        })""",
    "a frame of the student's that moves on": """
        const frame = document.createElement('iframe');
        frame.src = location.href;
        document.documentElement.append(frame);
        await new Promise(resolve => { frame.onload = resolve });
        const arrived = new Promise(resolve => { frame.onload = resolve });
        frame.contentWindow.location = '/hub/token';
        await arrived;
        try { return frame.contentDocument.documentElement.outerHTML } catch (error) { return String(error) }""",
    "an object": """
        const object = document.createElement('object');
        object.data = '/hub/token';
        object.type = 'text/html';
        const over = new Promise(resolve => { object.onload = object.onerror = resolve });
        document.documentElement.append(object);
        await over;
        try { return object.contentDocument.documentElement.outerHTML } catch (error) { return String(error) }""",
    "cookies, at an address that is not the page's": "history.pushState({}, '', '/hub/home'); return document.cookie",
    "cookies": "return document.cookie",
    "cookies of the service": "history.pushState({}, '', '/services/plasma/servers'); return document.cookie",
    "a style sheet": """
        const link = document.createElement('link');
        Object.assign(link, {rel: 'stylesheet', href: '/hub/token'});
        const over = new Promise(resolve => { link.onload = link.onerror = resolve });
        document.head.append(link);
        await over;
        try { return [...link.sheet.cssRules].map(rule => rule.cssText).join() } catch (error) { return String(error) }
        """,
    "a module": """
        try { return JSON.stringify((await import('/hub/api/users', {with: {type: 'json'}})).default) }
        catch (error) { return String(error) }""",
    "fetch of the API": "return await (await fetch('/hub/api/users')).text()",
    "fetch of the API with a made-up token": """
        return await (await fetch('/hub/api/users?_xsrf=x', {headers: {'X-XSRFToken': 'x'}})).text()""",
    "fetch of the API with a made-up login": """
        return await (await fetch('/hub/api/users', {headers: {Authorization: 'token x', 'X-XSRFToken': 'x'}})).text()
        """,
    "fetch of the service": "return await (await fetch('/services/plasma/api/servers')).text()",
    "fetch of the service with a made-up token": """
        return await (await fetch('/services/plasma/api/servers', {headers: {'X-XSRFToken': 'x'}})).text()""",
    "events": """
        return await new Promise(resolve => {
          const source = new EventSource(`/hub/api/users/${v.student}/server/progress`);
          source.onmessage = event => resolve('"last_activity"' + event.data);
          source.onerror = () => { source.close(); resolve('') };
        })""",
    # Browsers of today do nothing for it.
    "a page that a link wants prerendered": """
        add('link', {rel: 'prerender', href: '/hub/home'});
        return await (await fetch('/hub/home', {cache: 'force-cache'})).text()""",
    "a prefetched page": """
        const link = document.createElement('link');
        Object.assign(link, {rel: 'prefetch', href: '/hub/home'});
        const over = new Promise(resolve => { link.onload = link.onerror = resolve });
        document.head.append(link);
        await over;
        return await (await fetch('/hub/home', {cache: 'force-cache'})).text()""",
}


# What browsers fetch by themselves, or for something that is no script's: seen at the hub, by the word in the address.
def rules(what: str, word: str) -> str:
    """Speculation rules that prefetch or prerender a page of the hub at once."""
    return json.dumps({what: [{"source": "list", "urls": [f"/hub/token?asked={word}"], "eagerness": "immediate"}]})


def ruled(what: str) -> str:
    """A script that adds such rules to its page."""
    return f"add('script', {{type: 'speculationrules', textContent: {json.dumps(rules(what, f'rules-{what}'))}}})"


ASKED = {
    "rules-prefetch": ruled("prefetch"),
    "rules-prerender": ruled("prerender"),
    "link-prefetch": "add('link', {rel: 'prefetch', href: '/hub/token?asked=link-prefetch'})",
    "link-preload": "add('link', {rel: 'preload', as: 'fetch', href: '/hub/token?asked=link-preload'})",
    "picture": "new Image().src = '/hub/token?asked=picture'",
    "events": "new EventSource('/hub/token?asked=events')",
    "socket": "new WebSocket('/hub/token?asked=socket')",
    "download": "click({download: 'token.html', href: '/hub/token?asked=download'})",
}
# Rules of an answer's header, in a file.
HEADER_RULES = rules("prefetch", "header")

# Which WebSockets are let in.
SOCKETS = """
    const ask = path => new Promise(resolve => {
      const socket = new WebSocket(path, v.protocols || []);
      socket.onopen = () => { socket.close(); resolve('opened') };
      socket.onerror = () => resolve('refused');
    });
    return Object.fromEntries(await Promise.all(v.paths.map(async path => [path, await ask(path)])))"""

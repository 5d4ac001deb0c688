# The environments of pillar, through the hub's own service. Those that were made in the browser stay as they are.
{% set plasma = pillar['plasma'] %}
{% set environments = plasma.environments %}

{% if environments %}
include:
  - preflight
  - builder

{% if environments | selectattr('repository', 'defined') | selectattr('repository') | list %}
# To see where branches and tags are, and to fetch what is reached by SSH.
environments-packages:
  pkg.installed:
    - pkgs: [git, openssh-client]
    - install_recommends: false
    - require:
      - plasma_apt: preflight-packages-are-settled
    - require_in:
      - plasma_environment: environments-managed
{% endif %}

# Credentials and arguments of builds are read from pillar by the state itself: Salt shows arguments of states.
environments-managed:
  plasma_environment.managed:
    - environments: {{ environments | json }}
    - prefix: {{ plasma.hub.prefix }}
    - timeout: {{ plasma.builder.timeout }}
    - ready_timeout: {{ plasma.hub.ready_timeout }}
    - require:
      - plasma_preflight: preflight-server-is-fit
      - sls: builder
{% else %}
environments-managed:
  test.nop:
    - name: pillar names no environments; those that the hub has stay as they are
{% endif %}

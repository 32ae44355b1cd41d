# Puppet brings the policy and the unit to a host, and never a value: the catalog, the reports and PuppetDB hold no secret.
# The identity comes to the host another way, once: `vouchsafe init` there, its recipient into the policy.
class vouchsafe_api (
  String $policy_source = 'puppet:///modules/vouchsafe_api/api.toml',
  String $sealed_source = 'puppet:///modules/vouchsafe_api/prod.age',
  String $unit_source   = 'puppet:///modules/vouchsafe_api/vouchsafe-run-example.service',
) {
  file { ['/etc/vouchsafe', '/etc/vouchsafe/policies', '/etc/vouchsafe/policies/prod', '/etc/vouchsafe/secrets']:
    ensure => directory,
    owner  => 'root',
    group  => 'root',
    mode   => '0755',
  }

  file { '/etc/vouchsafe/policies/prod/api.toml':
    source       => $policy_source,
    owner        => 'root',
    group        => 'root',
    mode         => '0644',
    # A policy that does not pass is not put in place.
    validate_cmd => '/usr/local/bin/vouchsafe policy lint %',
    notify       => Service['vouchsafe-run-example'],
  }

  # Sealed: as safe in a catalog as in git.
  file { '/etc/vouchsafe/secrets/prod.age':
    source => $sealed_source,
    owner  => 'root',
    group  => 'root',
    mode   => '0644',
    notify => Service['vouchsafe-run-example'],
  }

  file { '/etc/systemd/system/vouchsafe-run-example.service':
    source => $unit_source,
    owner  => 'root',
    group  => 'root',
    mode   => '0644',
    notify => Service['vouchsafe-run-example'],
  }

  # Only while something is due; its status says which (docs/exit-status.md).
  exec { 'vouchsafe-check-api':
    command     => '/usr/local/bin/vouchsafe check --env prod --service api',
    refreshonly => true,
    subscribe   => File['/etc/vouchsafe/secrets/prod.age'],
    before      => Service['vouchsafe-run-example'],
  }

  service { 'vouchsafe-run-example':
    ensure => running,
    enable => true,
  }
}

//! What holds where a policy file says nothing: Glance's secure RBAC.

const ADMIN: &str = "rule:context_is_admin";
const ANYONE: &str = "";
const PROJECT_READER: &str = "rule:context_is_admin or (role:reader and project_id:%(project_id)s)";
const PROJECT_MEMBER: &str = "rule:context_is_admin or (role:member and project_id:%(project_id)s)";
const SHOWN: &str = "rule:context_is_admin or (role:reader and (project_id:%(project_id)s or \
     project_id:%(member_id)s or 'community':%(visibility)s or 'public':%(visibility)s or \
     'shared':%(visibility)s))";
const TAKEN: &str = "rule:context_is_admin or (role:member and (project_id:%(project_id)s or \
     project_id:%(member_id)s or 'community':%(visibility)s or 'public':%(visibility)s or \
     'shared':%(visibility)s))";
const SHARED_READER: &str = "rule:context_is_admin or (role:reader and \
     (project_id:%(project_id)s or project_id:%(member_id)s))";
const SERVICE_OR_MEMBER: &str = "rule:service_api or (role:member and project_id:%(project_id)s)";
const METADEF_READER: &str = "rule:context_is_admin or (role:reader and \
     (project_id:%(project_id)s or 'public':%(visibility)s))";
const METADEF_ADMIN: &str = "rule:metadef_admin";

/// Every rule that is asked, and what holds unless a policy file says otherwise.
pub(super) const DEFAULTS: &[(&str, &str)] = &[
    ("default", ANYONE),
    ("context_is_admin", "role:admin"),
    ("service_api", "role:service or role:admin"),
    ("add_image", PROJECT_MEMBER),
    ("get_images", PROJECT_READER),
    ("get_image", SHOWN),
    ("modify_image", PROJECT_MEMBER),
    ("delete_image", PROJECT_MEMBER),
    ("upload_image", PROJECT_MEMBER),
    ("publicize_image", ADMIN),
    ("communitize_image", PROJECT_MEMBER),
    ("download_image", TAKEN),
    ("download_from_store", TAKEN),
    ("deactivate", PROJECT_MEMBER),
    ("reactivate", PROJECT_MEMBER),
    ("copy_image", ADMIN),
    ("add_member", PROJECT_MEMBER),
    ("delete_member", PROJECT_MEMBER),
    ("get_member", SHARED_READER),
    ("get_members", SHARED_READER),
    (
        "modify_member",
        "rule:context_is_admin or (role:member and project_id:%(member_id)s)",
    ),
    ("get_image_location", PROJECT_READER),
    ("set_image_location", PROJECT_MEMBER),
    ("delete_image_location", ADMIN),
    ("add_image_location", SERVICE_OR_MEMBER),
    ("fetch_image_location", "rule:service_api"),
    ("manage_image_cache", ADMIN),
    ("cache_image", ADMIN),
    ("cache_list", ADMIN),
    ("cache_delete", ADMIN),
    ("cache_clean", ADMIN),
    ("cache_prune", ADMIN),
    ("list_cached_nodes", ADMIN),
    (
        "stores_info_detail",
        "rule:context_is_admin or role:service",
    ),
    ("get_task", ANYONE),
    ("get_tasks", ANYONE),
    ("add_task", ANYONE),
    ("modify_task", ANYONE),
    ("tasks_api_access", ADMIN),
    ("get_batch", PROJECT_READER),
    ("get_batches", PROJECT_READER),
    ("add_batch", PROJECT_MEMBER),
    // Whoever may reads what lies in the folders of `[batches] source_dirs`.
    ("add_batch_files", ADMIN),
    ("modify_batch", PROJECT_MEMBER),
    ("delete_batch", PROJECT_MEMBER),
    ("metadef_default", ANYONE),
    ("metadef_admin", ADMIN),
    ("get_metadef_namespace", METADEF_READER),
    ("get_metadef_namespaces", METADEF_READER),
    ("add_metadef_namespace", METADEF_ADMIN),
    ("modify_metadef_namespace", METADEF_ADMIN),
    ("delete_metadef_namespace", METADEF_ADMIN),
    ("get_metadef_object", METADEF_READER),
    ("get_metadef_objects", METADEF_READER),
    ("add_metadef_object", METADEF_ADMIN),
    ("modify_metadef_object", METADEF_ADMIN),
    ("delete_metadef_object", METADEF_ADMIN),
    ("get_metadef_property", METADEF_READER),
    ("get_metadef_properties", METADEF_READER),
    ("add_metadef_property", METADEF_ADMIN),
    ("modify_metadef_property", METADEF_ADMIN),
    ("remove_metadef_property", METADEF_ADMIN),
    ("get_metadef_resource_type", METADEF_READER),
    ("list_metadef_resource_types", METADEF_READER),
    ("add_metadef_resource_type_association", METADEF_ADMIN),
    ("remove_metadef_resource_type_association", METADEF_ADMIN),
    ("get_metadef_tag", METADEF_READER),
    ("get_metadef_tags", METADEF_READER),
    ("add_metadef_tag", METADEF_ADMIN),
    ("add_metadef_tags", METADEF_ADMIN),
    ("modify_metadef_tag", METADEF_ADMIN),
    ("delete_metadef_tag", METADEF_ADMIN),
    ("delete_metadef_tags", METADEF_ADMIN),
];
